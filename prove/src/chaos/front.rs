//! What stands before the model server: one address for the tools, behind which the server can die and come again, stand
//! still or be slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use readyroom_testkit::Model;

/// A model server behind an address that stays.
pub struct Front {
    facts: Arc<Facts>,
    port: u16,
    model: Mutex<Option<Model>>,
    /// Tells a new server what to say.
    scripts: Box<dyn Fn(&Model) + Send + Sync>,
}

#[derive(Default)]
struct Facts {
    /// The server's port; 0: there is none.
    behind: AtomicU16,
    stalled: AtomicBool,
    /// Milliseconds of wait for each piece.
    slow: AtomicU64,
    over: AtomicBool,
}

impl Front {
    /// Starts a server and listens. `scripts` is called for each server that is started.
    pub fn start(scripts: impl Fn(&Model) + Send + Sync + 'static) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let facts = Arc::new(Facts::default());
        let seen = Arc::clone(&facts);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if seen.over.load(Relaxed) {
                    break;
                }
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(client, &seen));
            }
        });
        let front = Self { facts, port, model: Mutex::new(None), scripts: Box::new(scripts) };
        front.revive();
        Ok(front)
    }

    /// The address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills the server; who talks to it is cut off.
    pub fn kill(&self) {
        self.facts.behind.store(0, Relaxed);
        if let Ok(mut model) = self.model.lock() {
            model.take();
        }
    }

    /// Starts another server.
    pub fn revive(&self) {
        let model = Model::start();
        (self.scripts)(&model);
        self.facts.behind.store(model.port(), Relaxed);
        if let Ok(mut place) = self.model.lock() {
            *place = Some(model);
        }
    }

    /// Lets nothing through, or all again.
    pub fn stall(&self, stalled: bool) {
        self.facts.stalled.store(stalled, Relaxed);
    }

    /// Waits before each piece that goes through.
    pub fn slow(&self, wait: Duration) {
        self.facts.slow.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.facts.over.store(true, Relaxed);
        // So that the listener sees it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(client: TcpStream, facts: &Arc<Facts>) {
    let port = facts.behind.load(Relaxed);
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let back = Arc::clone(facts);
    let there = thread::spawn(move || pass(from, to, &back));
    pass(server, client, facts);
    let _ = there.join();
}

fn pass(mut from: TcpStream, mut to: TcpStream, facts: &Facts) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        thread::sleep(Duration::from_millis(facts.slow.load(Relaxed)));
        while facts.stalled.load(Relaxed) && !facts.over.load(Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
