# usage: guest.sh TREE DIRECTORY, in a mount namespace of its own
#
# Boots systemd as process 1 of its own namespaces, on a copy-on-write view of TREE. When the manager answers, prints the number
# that its process has outside. When standard input ends, so does the guest, with all that runs in it.
#
# All mounts are in DIRECTORY and in this namespace, and end with it; what could stay behind is a control group, and the next run
# removes those of runs that are no more. Process 1 is killed with whoever started it.
set -euo pipefail

tree=$1
directory=$2
name=outgoingd-guest.$$
groups=$directory/groups
root=$directory/root

mkdir "$directory"/{groups,memory,root}
mount -t tmpfs -o mode=755 guest "$directory/memory"
mkdir "$directory"/memory/{upper,work}
mount -t cgroup2 guest "$groups"
for left in "$groups"/outgoingd-guest.*; do
    if [ -d "$left" ] && [ ! -d "/proc/${left##*.}" ]; then
        find "$left" -depth -type d -exec rmdir {} \; 2>/dev/null || :
    fi
done
mkdir "$groups/$name"
mount -t overlay guest -o "lowerdir=$tree,upperdir=$directory/memory/upper,workdir=$directory/memory/work" "$root"

finish() {
    set +e
    trap '' INT TERM HUP
    # The kernel ends everything in a process namespace with its process 1.
    echo 1 >"$groups/$name/cgroup.kill"
    for _ in {1..50}; do
        find "$groups/$name" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ -d "$groups/$name" ] || break
        sleep .05
    done
    umount -l "$root" "$groups" "$directory/memory"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP

tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
: >"$root/etc/fstab"
# No device, no network but loopback, no login: the least that is a system.
cat >"$root/etc/systemd/system/guest.target" <<'UNIT'
[Unit]
Requires=sysinit.target
Wants=dbus.socket
After=sysinit.target dbus.socket
UNIT

# The namespace of control groups has its root where the process is that makes it.
boot='
echo 0 >"$1/cgroup.procs"
exec setpriv --pdeathsig KILL unshare --mount --cgroup --pid --fork --ipc --uts --net --kill-child=KILL bash -euc "$2" - "$3"'

become_the_manager='
cd "$1"
mount -t proc -o nosuid,nodev,noexec proc proc
for part in sys sysrq-trigger; do
    [ -e "proc/$part" ] || continue
    mount --bind "proc/$part" "proc/$part"
    mount -o remount,bind,ro,nosuid,nodev,noexec "proc/$part"
done
# That it cannot be written to keeps away what looks after devices.
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/pts dev/shm
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir run/outside
pivot_root . run/outside
cd /
umount -l run/outside
rmdir run/outside
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_module,-sys_rawio,-sys_time,-syslog,-audit_control,-mac_admin,-mac_override \
    /lib/systemd/systemd --unit=guest.target'

bash -c "$boot" - "$groups/$name" "$become_the_manager" "$root" </dev/null >&2 &
starter=$!

# systemctl is-system-running says so as soon as everything that belongs to the target has been started, or has failed.
for _ in {1..1200}; do
    kill -0 $starter
    read -r manager _ <"/proc/$starter/task/$starter/children" || :
    if [ "$(cat "/proc/${manager:-none}/comm" 2>/dev/null)" = systemd ]; then
        inside=(nsenter --target "$manager" --mount --uts --ipc --pid --cgroup --net --root --)
        state=$("${inside[@]}" systemctl is-system-running 2>/dev/null || :)
        [[ $state != running && $state != degraded ]] || break
    fi
    sleep .05
done
[[ ${state-} = running || ${state-} = degraded ]]
echo "$manager"
cat >/dev/null
