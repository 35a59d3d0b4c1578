"""Runs the program in the arguments with an SMTP dialogue on its standard input and output: EHLO, STARTTLS, and behind it the lines
on our own standard input, each when the one before is answered. Prints the answers."""

import socket
import ssl
import subprocess
import sys

ours, theirs = socket.socketpair()
ours.settimeout(20)
server = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs)
theirs.close()


def answer(stream):
    while True:
        line = stream.readline().decode()
        print(line, end="")
        if line[3:4] != "-":
            return


plain = ours.makefile("rwb", buffering=0)
answer(plain)
for command in (b"EHLO client.test\r\n", b"STARTTLS\r\n"):
    plain.write(command)
    answer(plain)
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
secret = context.wrap_socket(ours).makefile("rwb", buffering=0)
for line in sys.stdin.read().split("\n"):
    secret.write(line.encode() + b"\r\n")
    # Lines of a message have no answer of their own.
    if line == "." or line.split(":")[0].split(" ")[0] in ("EHLO", "MAIL", "RCPT", "DATA", "RSET"):
        answer(secret)
secret.close()
server.wait(20)
