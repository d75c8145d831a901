//! The one thread that writes: stdout, stderr, the JSON lines and the answers' files. The run sends it messages and is
//! never held up by a reader that is slow or a terminal that is stopped.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use readyroom::event::TurnId;
use readyroom::{Event, Outcome};

use super::render::Look;
use super::view::View;
use super::{Ended, Reporter, Verbosity, table, text};
use crate::output::{Broken, Outputs};
use crate::plan::Plan;

/// What the printer is told.
#[derive(Debug)]
pub enum Message {
    /// A pool is being opened.
    Opening(usize),
    /// A job was handed to a pool.
    Submitted {
        /// The job, by place.
        job: usize,
        /// The pool, by place.
        pool: usize,
        /// The turn's number there.
        turn: TurnId,
    },
    /// Something happened in a pool.
    Event(usize, Event),
    /// A pool is shut down.
    Closed(usize),
    /// A job has ended. Answered by [`Reply::Written`], and by [`Reply::Broken`] before it where something can't be
    /// written.
    Ended(Box<Ended>),
    /// Something that a person should know.
    Notice(String),
    /// Nothing more is handed out, for this reason.
    Stopping(String),
    /// The run is over. Answered by [`Reply::Finished`].
    Finish {
        /// Jobs that were not done, by place.
        not_done: Vec<usize>,
        /// Those of them whose end was never told.
        unreported: Vec<usize>,
    },
}

/// What the printer answers.
#[derive(Debug)]
pub enum Reply {
    /// A job's outcome and answer are written, as far as they can be.
    Written(usize),
    /// The outcomes and answers of these jobs are where they were to go.
    Told(Vec<usize>),
    /// An output can't be written any more.
    Broken(Broken),
    /// Everything is written.
    Finished,
}

/// What a printer needs.
pub struct Printer {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Whether each job has a process of its own.
    pub one_shot: bool,
    /// Renders on stderr.
    pub reporter: Box<dyn Reporter>,
    /// Where results go.
    pub outputs: Outputs,
    /// How much is told.
    pub verbosity: Verbosity,
    /// How lines may look.
    pub look: Look,
    /// Whether stdout and stderr are the same terminal.
    pub shared_terminal: bool,
}

impl Printer {
    /// Starts the thread. It ends with the sender; `reply` must not block.
    ///
    /// # Errors
    /// The system can't start a thread.
    pub fn start(self, reply: impl Fn(Reply) + Send + 'static) -> std::io::Result<Sender<Message>> {
        let (sender, receiver) = mpsc::channel();
        let view = View::new(Arc::clone(&self.plan), self.one_shot, Instant::now());
        let mut printing = Printing { printer: self, view, broken: false };
        thread::Builder::new().name("printer".into()).spawn(move || {
            let mut watch = Watch { reply, finished: false };
            watch.finished = printing.run(&receiver, &watch.reply);
        })?;
        Ok(sender)
    }
}

/// Tells the run when the thread ends before its time (by a panic), so that nothing waits for it.
struct Watch<F: Fn(Reply)> {
    reply: F,
    finished: bool,
}

impl<F: Fn(Reply)> Drop for Watch<F> {
    fn drop(&mut self) {
        if !self.finished {
            (self.reply)(Reply::Broken(Broken::new("the report", std::io::Error::other("its thread has ended"))));
            (self.reply)(Reply::Finished);
        }
    }
}

struct Printing {
    printer: Printer,
    view: View,
    /// Whether an output is broken; it is told once.
    broken: bool,
}

impl Printing {
    /// Prints until the run is over; true when its last words were printed.
    fn run(&mut self, receiver: &Receiver<Message>, reply: &dyn Fn(Reply)) -> bool {
        loop {
            match receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(Message::Finish { not_done, unreported }) => {
                    self.finish(&not_done, &unreported, reply);
                    reply(Reply::Finished);
                    return true;
                }
                Ok(message) => self.take(message, reply),
                Err(RecvTimeoutError::Timeout) => self.printer.reporter.tick(&self.view),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.printer.reporter.end();
        false
    }

    fn take(&mut self, message: Message, reply: &dyn Fn(Reply)) {
        let now = Instant::now();
        match message {
            Message::Opening(pool) => self.view.opening(pool, now),
            Message::Submitted { job, pool, turn } => self.view.submitted(job, pool, turn),
            Message::Event(pool, event) => {
                // The line of a turn's start names its job, which the view forgets at its end.
                self.view.event(pool, &event, now);
                self.printer.reporter.event(&self.view, pool, &event);
            }
            Message::Closed(pool) => self.view.closed(pool),
            Message::Ended(ended) => {
                self.ended(&ended, reply);
                reply(Reply::Written(ended.job));
            }
            Message::Notice(text) => self.printer.reporter.notice(&text),
            Message::Stopping(why) => {
                self.printer.reporter.notice(&why);
                self.view.stopping = Some(why);
            }
            Message::Finish { .. } => {}
        }
    }

    fn ended(&mut self, ended: &Ended, reply: &dyn Fn(Reply)) {
        self.view.ended(ended);
        self.write(ended, reply);
        let shown = self.printer.shared_terminal && self.printer.outputs.shows(ended.job);
        self.printer.reporter.ended(&self.view, ended, shown);
    }

    /// Writes an outcome. The first output that breaks is told; the others go on.
    fn write(&mut self, ended: &Ended, reply: &dyn Fn(Reply)) {
        let Printer { reporter, outputs, shared_terminal, .. } = &mut self.printer;
        let mut result = Ok(());
        let mut write = || result = outputs.ended(ended);
        if *shared_terminal {
            reporter.around(&mut write)
        } else {
            write()
        }
        self.check(result, reply);
        self.tell(reply);
    }

    fn tell(&mut self, reply: &dyn Fn(Reply)) {
        let told = self.printer.outputs.take_told();
        if !told.is_empty() {
            reply(Reply::Told(told));
        }
    }

    fn check(&mut self, result: Result<(), Broken>, reply: &dyn Fn(Reply)) {
        if let Err(broken) = result
            && !self.broken
        {
            self.broken = true;
            reply(Reply::Broken(broken));
        }
    }

    fn finish(&mut self, not_done: &[usize], unreported: &[usize], reply: &dyn Fn(Reply)) {
        self.printer.reporter.end();
        let result = self.printer.outputs.finish();
        self.check(result, reply);
        self.tell(reply);
        for &job in unreported {
            self.write(&Ended::unstarted(job, Outcome::Cancelled), reply);
        }
        self.printer.reporter.end();
        for &job in not_done {
            let label = text::one_line(&self.view.plan.label(job));
            self.printer.reporter.notice(&format!("not done: {label}"));
        }
        if self.printer.verbosity > Verbosity::Quiet {
            for line in table::table(&self.view, Instant::now(), self.printer.look) {
                self.printer.reporter.notice(&line);
            }
        }
    }
}
