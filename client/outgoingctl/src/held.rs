//! `held`: what waits on Exim's queue because its sender is held.

use crate::Failure;
use crate::output::Output;
use crate::rows::{HeldRow, SummaryRow};
use crate::tools::{TABLE_ROWS, Tools, walk};
use crate::{moment, show};
use outgoingd_client::held::{Message, Search, Stand};
use std::collections::BTreeMap;

/// What is shown of it.
#[derive(Clone, Copy)]
pub(crate) enum View {
    /// So many messages at most, the oldest.
    Messages(u64),
    /// Totals by subject.
    Summary,
}

pub(crate) fn held(tools: &mut Tools, subject: Option<String>, before: Option<u64>, view: View) -> Result<(), Failure> {
    let exim = tools.exim()?;
    subject.iter().try_for_each(|subject| tools.warn_of_unknown(subject))?;
    let subjects: Vec<String> = subject.into_iter().collect();
    let mut listing =
        Listing { view, now: moment::now(), rows: Vec::new(), messages: 0, bytes: 0, totals: BTreeMap::new() };
    let search = Search { subjects: &subjects, of: Stand::Held, before };
    let Tools { client, output, .. } = tools;
    let walked = walk(client, output, &exim, search, |output, message| listing.add(output, message));
    match walked {
        // The oldest were asked for, and these are they.
        Ok(_) | Err(Failure::Enough) => listing.finish(output),
        Err(error) => Err(error),
    }
}

/// What was found so far.
struct Listing {
    view: View,
    now: u64,
    /// Rows of the table that are not printed yet.
    rows: Vec<Vec<String>>,
    messages: u64,
    bytes: u64,
    totals: BTreeMap<String, Total>,
}

/// What one subject's hold keeps back.
#[derive(Default)]
struct Total {
    messages: u64,
    bytes: u64,
    recipients: u64,
    oldest: u64,
}

impl Listing {
    fn add(&mut self, output: &mut Output, message: Message) -> Result<(), Failure> {
        // One that has left since is no longer held.
        let Some(size) = message.size()? else { return Ok(()) };
        self.messages += 1;
        self.bytes += size;
        match self.view {
            View::Summary => self.count(message, size),
            View::Messages(limit) => {
                let row = HeldRow::new(message, size, self.now);
                if output.json {
                    output.row(&row)?;
                } else {
                    self.rows.push(show::held(&row));
                    if self.rows.len() >= TABLE_ROWS {
                        self.print(output)?;
                    }
                }
                if self.messages >= limit {
                    return Err(Failure::Enough);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, message: Message, size: u64) {
        let total = self.totals.entry(message.judgement.through.unwrap_or_default()).or_default();
        if total.messages == 0 {
            total.oldest = message.header.received;
        }
        total.messages += 1;
        total.bytes += size;
        total.recipients += message.header.to_go.len() as u64;
    }

    fn print(&mut self, output: &mut Output) -> Result<(), Failure> {
        let first = self.messages == self.rows.len() as u64;
        let mut table = show::table(if first { &show::HELD } else { &[] });
        table.add_rows(self.rows.drain(..));
        output.text(&show::text(&table))?;
        output.is_read()
    }

    fn finish(mut self, output: &mut Output) -> Result<(), Failure> {
        match self.view {
            View::Summary if output.json => self.summary().try_for_each(|row| output.row(&row)),
            View::Summary if self.messages > 0 => {
                let mut table = show::table(&show::SUMMARY);
                let ages = self.totals.values().map(|total| self.now.saturating_sub(total.oldest));
                table.add_rows(self.summary().zip(ages).map(|(row, age)| show::summary(&row, age)));
                output.text(&show::text(&table))
            }
            View::Messages(_) if output.json => Ok(()),
            _ if self.messages == 0 => output.text("no held mail\n"),
            _ => {
                if !self.rows.is_empty() {
                    self.print(output)?;
                }
                output.text(&format!("\n{}, {}\n", show::messages(self.messages), show::size(self.bytes)))
            }
        }
    }

    fn summary(&self) -> impl Iterator<Item = SummaryRow<'_>> {
        self.totals.iter().map(|(subject, total)| SummaryRow {
            subject,
            messages: total.messages,
            size: total.bytes,
            recipients: total.recipients,
            oldest: moment::rfc3339(total.oldest),
        })
    }
}
