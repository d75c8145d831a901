//! The journal's file: its schema, and what is read from and written to it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use serde_json::Value;

use super::{ChangeState, Entry, JobState, JournalError, Recorded};
use crate::budget::Spent;
use crate::workspace::Change;

/// One step from each version to the next; the version of a new file is their number.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE batches (
        id TEXT PRIMARY KEY, created INTEGER NOT NULL, directory BLOB NOT NULL, title TEXT NOT NULL, spec TEXT NOT NULL
    ) STRICT;
    CREATE TABLE jobs (
        batch TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE, place INTEGER NOT NULL, id TEXT NOT NULL,
        spec TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, outcome TEXT,
        PRIMARY KEY (batch, place), UNIQUE (batch, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX jobs_by_state ON jobs (batch, state);
    CREATE INDEX batches_by_directory ON batches (directory, created);
",
    "
    ALTER TABLE jobs ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN usd REAL NOT NULL DEFAULT 0;
    CREATE TABLE changes (
        batch TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE, place INTEGER NOT NULL, ended INTEGER NOT NULL,
        state TEXT NOT NULL, branch TEXT, facts TEXT NOT NULL, patch BLOB NOT NULL,
        PRIMARY KEY (batch, place)
    ) STRICT;
",
    "ALTER TABLE jobs ADD COLUMN told INTEGER NOT NULL DEFAULT 1",
];

/// How long a writer waits for another one.
const BUSY: Duration = Duration::from_secs(10);

/// A batch that is to be written down.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Its id; none: one is made of the time.
    pub id: Option<String>,
    /// Where it was started.
    pub directory: PathBuf,
    /// What it is, in a line for people.
    pub title: String,
    /// What its jobs have in common, in the caller's form.
    pub spec: Value,
    /// Its jobs, in order.
    pub jobs: Vec<NewJob>,
}

/// A job of such a batch.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id, which no other job of the batch has.
    pub id: String,
    /// What it is, in the caller's form.
    pub spec: Value,
}

/// A batch in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Where it was started.
    pub directory: PathBuf,
    /// What it is, in a line for people.
    pub title: String,
    /// What its jobs have in common.
    pub spec: Value,
    /// How many of its jobs stand how.
    pub states: BatchState,
}

/// How many jobs of a batch stand how, in the order of [`JobState::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchState([u64; JobState::ALL.len()]);

impl BatchState {
    /// How many stand so.
    pub fn of(&self, state: JobState) -> u64 {
        JobState::ALL.iter().position(|each| *each == state).map_or(0, |at| self.0[at])
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A job in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its place in the batch, from 0.
    pub place: usize,
    /// Its id.
    pub id: String,
    /// What it is.
    pub spec: Value,
    /// How it stands.
    pub state: JobState,
    /// How often it was going to be sent to a tool.
    pub attempts: u64,
    /// Its last outcome, in the caller's form.
    pub outcome: Option<Value>,
    /// What all of its attempts have cost.
    pub spent: Spent,
}

/// The journal's file, open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    durable: Durable,
}

/// What a write outlasts when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    /// The process that wrote it, however it ends. A later write of the other kind makes this one durable, too.
    Here,
    /// A power cut.
    OnDisk,
}

impl Store {
    /// Where the journal is by default: `readyroom/journal.sqlite` in the user's state directory.
    ///
    /// # Errors
    /// Neither `XDG_STATE_HOME` nor `HOME` is set.
    pub fn default_path() -> Result<PathBuf, JournalError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // A relative one is to be ignored, by its specification.
        let state = set("XDG_STATE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local/state")));
        Ok(state.ok_or(JournalError::NoPlace)?.join("readyroom/journal.sqlite"))
    }

    /// Opens the journal at `path`; one that is not there is made, for its user's eyes only, as prompts and answers stand in it.
    ///
    /// # Errors
    /// The place can't be written to, the file is none of ours, damaged, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |error| JournalError::File { path: path.to_owned(), error };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let connection = Connection::open(path).map_err(|error| database(path, &error))?;
        let mut store = Self { connection, path: path.to_owned(), durable: Durable::Here };
        store.prepare().map_err(|error| match error {
            Prepare::Newer(found) => {
                JournalError::Newer { path: path.to_owned(), found, known: MIGRATIONS.len() as i64 }
            }
            Prepare::Database(error) => database(path, &error),
        })?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), Prepare> {
        self.connection.busy_timeout(BUSY)?;
        self.connection.pragma_update(None, "foreign_keys", true)?;
        let version =
            |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        let known = MIGRATIONS.len() as i64;
        let found = version(&self.connection)?;
        if found > known {
            return Err(Prepare::Newer(found));
        }
        self.connection.pragma_update(None, "journal_mode", "wal")?;
        self.outlast(Durable::OnDisk)?;
        if found < known {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Somebody else may have done it meanwhile.
            let found = version(&transaction)?;
            for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
                transaction.execute_batch(step)?;
            }
            transaction.pragma_update(None, "user_version", known)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// The version of its schema.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn version(&self) -> Result<i64, JournalError> {
        self.read(|connection| connection.pragma_query_value(None, "user_version", |row| row.get(0)))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An id for a batch, made of the time, that none has; with `more` another one than with less.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn unused_id(&self, more: u32) -> Result<String, JournalError> {
        let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        self.read(|connection| {
            let ids = (1..).map(|number| if number == 1 { stamp.clone() } else { format!("{stamp}-{number}") });
            let mut unused = ids.skip(more as usize).map(|id| Ok((!exists(connection, &id)?).then_some(id)));
            unused.find_map(Result::transpose).unwrap_or_else(|| Ok(stamp.clone()))
        })
    }

    /// Writes a batch down, all of its jobs queued; its id. Durable when this returns.
    ///
    /// # Errors
    /// There is one of that id; the file can't be written.
    pub fn create(&mut self, batch: &NewBatch) -> Result<String, JournalError> {
        let id = match &batch.id {
            Some(id) => id.clone(),
            None => self.unused_id(0)?,
        };
        let created = self.write(|transaction| {
            if exists(transaction, &id)? {
                return Ok(false);
            }
            transaction.execute(
                "INSERT INTO batches (id, created, directory, title, spec) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    id,
                    Timestamp::now().as_millisecond(),
                    bytes(&batch.directory),
                    batch.title,
                    batch.spec.to_string()
                ],
            )?;
            insert(transaction, &id, 0, &batch.jobs)?;
            Ok(true)
        })?;
        match created {
            true => Ok(id),
            false => Err(JournalError::Taken { name: id, path: self.path.clone() }),
        }
    }

    /// Gives a batch anew what all its jobs have in common, and jobs: at these places, queued again, and behind all that it has.
    /// Durable when this returns.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn extend(
        &mut self,
        batch: &str,
        spec: &Value,
        again: &[(usize, Value)],
        jobs: &[NewJob],
    ) -> Result<(), JournalError> {
        self.write(|transaction| {
            transaction.execute("UPDATE batches SET spec = ?2 WHERE id = ?1", params![batch, spec.to_string()])?;
            for (place, spec) in again {
                transaction.execute(
                    "UPDATE jobs SET spec = ?3, state = 'queued' WHERE batch = ?1 AND place = ?2",
                    params![batch, *place as i64, spec.to_string()],
                )?;
            }
            let first = transaction.query_row(
                "SELECT coalesce(max(place) + 1, 0) FROM jobs WHERE batch = ?1",
                [batch],
                |row| row.get::<_, i64>(0),
            )?;
            insert(transaction, batch, first, jobs)
        })
    }

    /// Writes entries, all or none. Durable when this returns; where it does no harm if all of them are forgotten (beginnings of
    /// jobs that may run a second time, ends that may be told again), they outlast this process, and only the next write of
    /// another kind makes sure of a power cut.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn enter<'a, E>(&mut self, entries: E) -> Result<(), JournalError>
    where
        E: IntoIterator<Item = &'a Entry> + Clone,
    {
        let harmless = |entry| matches!(entry, &Entry::Begun { safe: true, .. } | &Entry::Told { .. });
        let durable = if entries.clone().into_iter().all(harmless) { Durable::Here } else { Durable::OnDisk };
        self.write_durably(durable, |transaction| {
            for entry in entries {
                match entry {
                    Entry::Begun { batch, place, .. } => transaction
                        .prepare_cached(
                            "UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE batch = ?1 AND place = ?2",
                        )?
                        .execute(params![batch, *place as i64])?,
                    Entry::Requeued { batch, place, spent } => transaction
                        .prepare_cached(
                            "UPDATE jobs SET state = 'queued', tokens = tokens + ?3, usd = usd + ?4 \
                             WHERE batch = ?1 AND place = ?2",
                        )?
                        .execute(params![batch, *place as i64, tokens(spent), spent.usd])?,
                    Entry::Ended { batch, place, state, outcome, spent, change } => {
                        match change {
                            Some(recorded) => record(transaction, batch, *place, recorded)?,
                            // What an earlier attempt wanted is not wanted any more.
                            None if *state == JobState::Succeeded => {
                                transaction
                                    .prepare_cached(
                                        "DELETE FROM changes WHERE batch = ?1 AND place = ?2 AND state <> 'applied'",
                                    )?
                                    .execute(params![batch, *place as i64])?;
                            }
                            None => {}
                        }
                        transaction
                            .prepare_cached(
                                "UPDATE jobs SET state = ?3, outcome = ?4, tokens = tokens + ?5, usd = usd + ?6, \
                                 told = 0 WHERE batch = ?1 AND place = ?2",
                            )?
                            .execute(params![
                                batch,
                                *place as i64,
                                state.name(),
                                outcome.to_string(),
                                tokens(spent),
                                spent.usd
                            ])?
                    }
                    Entry::Changed { batch, place, state, branch, job } => {
                        if let Some((state, outcome)) = job {
                            transaction
                                .prepare_cached(
                                    "UPDATE jobs SET state = ?3, outcome = ?4 WHERE batch = ?1 AND place = ?2",
                                )?
                                .execute(params![batch, *place as i64, state.name(), outcome.to_string()])?;
                        }
                        transaction
                            .prepare_cached(
                                "UPDATE changes SET state = ?3, branch = ?4 WHERE batch = ?1 AND place = ?2",
                            )?
                            .execute(params![batch, *place as i64, state.name(), branch])?
                    }
                    Entry::Told { batch, place } => transaction
                        .prepare_cached("UPDATE jobs SET told = 1 WHERE batch = ?1 AND place = ?2")?
                        .execute(params![batch, *place as i64])?,
                    Entry::Dropped { batch, place } => transaction
                        .prepare_cached("UPDATE jobs SET state = 'dropped' WHERE batch = ?1 AND place = ?2")?
                        .execute(params![batch, *place as i64])?,
                    Entry::Lost { batch, place } => transaction
                        .prepare_cached("UPDATE jobs SET state = 'lost' WHERE batch = ?1 AND place = ?2")?
                        .execute(params![batch, *place as i64])?,
                };
            }
            Ok(())
        })
    }

    /// All batches, the newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn batches(&self) -> Result<Vec<Batch>, JournalError> {
        self.read(|connection| {
            let mut select = connection
                .prepare("SELECT id, created, directory, title, spec FROM batches ORDER BY created DESC, rowid DESC")?;
            let found: Vec<_> = select.query_map([], batch)?.collect::<Result<_, _>>()?;
            found.into_iter().map(|batch| with_states(connection, batch)).collect()
        })
    }

    /// One batch.
    ///
    /// # Errors
    /// There is none of that id; the file can't be read.
    pub fn batch(&self, id: &str) -> Result<Batch, JournalError> {
        let found = self.read(|connection| {
            let sql = "SELECT id, created, directory, title, spec FROM batches WHERE id = ?1";
            let found = connection.query_row(sql, [id], batch).optional()?;
            found.map(|batch| with_states(connection, batch)).transpose()
        })?;
        found.ok_or_else(|| JournalError::NoBatch { name: id.to_owned(), path: self.path.clone() })
    }

    /// The newest batch that was started in a directory.
    ///
    /// # Errors
    /// There is none; the file can't be read.
    pub fn last_in(&self, directory: &Path) -> Result<Batch, JournalError> {
        let id: Option<String> = self.read(|connection| {
            let sql = "SELECT id FROM batches WHERE directory = ?1 ORDER BY created DESC, rowid DESC LIMIT 1";
            connection.query_row(sql, [bytes(directory)], |row| row.get(0)).optional()
        })?;
        let name = || format!("was started in {}", directory.display());
        let id = id.ok_or_else(|| JournalError::NoBatch { name: name(), path: self.path.clone() })?;
        self.batch(&id)
    }

    /// The jobs of a batch, in order.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn jobs(&self, batch: &str) -> Result<Vec<Job>, JournalError> {
        self.jobs_that(batch, "true")
    }

    /// The jobs of a batch whose ends stand here and were never told, in order: their owner was killed in between.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn untold(&self, batch: &str) -> Result<Vec<Job>, JournalError> {
        self.jobs_that(batch, "told = 0 AND state IN ('succeeded', 'failed')")
    }

    fn jobs_that(&self, batch: &str, hold: &str) -> Result<Vec<Job>, JournalError> {
        self.read(|connection| {
            let mut select = connection.prepare(&format!(
                "SELECT place, id, spec, state, attempts, outcome, tokens, usd FROM jobs \
                 WHERE batch = ?1 AND {hold} ORDER BY place",
            ))?;
            select.query_map([batch], job)?.collect()
        })
    }

    /// What the jobs of a batch changed, with their places, in the order in which they ended.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn changes(&self, batch: &str) -> Result<Vec<(usize, Recorded)>, JournalError> {
        self.read(|connection| {
            let mut select = connection.prepare(
                "SELECT place, state, branch, facts, patch FROM changes WHERE batch = ?1 ORDER BY ended, place",
            )?;
            select.query_map([batch], recorded)?.collect()
        })
    }

    /// How many changes of a batch are not in the caller's files.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn unapplied(&self, batch: &str) -> Result<u64, JournalError> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM changes WHERE batch = ?1 AND state <> 'applied'";
            connection.query_row(sql, [batch], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        })
    }

    /// Takes a batch out.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn remove(&mut self, batch: &str) -> Result<(), JournalError> {
        self.write(|transaction| transaction.execute("DELETE FROM batches WHERE id = ?1", [batch]).map(drop))
    }

    fn write<T>(&mut self, what: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        self.write_durably(Durable::OnDisk, what)
    }

    fn write_durably<T>(
        &mut self,
        durable: Durable,
        what: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let written = (|| {
            self.outlast(durable)?;
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = what(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        written.map_err(|error: rusqlite::Error| database(&self.path, &error))
    }

    /// Has what is written from here on outlast so much.
    fn outlast(&mut self, durable: Durable) -> rusqlite::Result<()> {
        if self.durable != durable {
            let synchronous = match durable {
                Durable::Here => "normal",
                Durable::OnDisk => "full",
            };
            self.connection.pragma_update(None, "synchronous", synchronous)?;
            self.durable = durable;
        }
        Ok(())
    }

    /// Whether the last write waited for the disk.
    #[cfg(test)]
    pub(super) fn waits_for_disk(&self) -> bool {
        // 1 is `normal`, 2 is `full`.
        self.connection.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap() >= 2
    }

    fn read<T>(&self, what: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        what(&self.connection).map_err(|error| database(&self.path, &error))
    }
}

enum Prepare {
    Newer(i64),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Prepare {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

fn database(path: &Path, error: &rusqlite::Error) -> JournalError {
    JournalError::Database { path: path.to_owned(), message: error.to_string() }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

fn exists(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM batches WHERE id = ?1)", [id], |row| row.get(0))
}

fn batch(row: &Row<'_>) -> rusqlite::Result<Batch> {
    use std::os::unix::ffi::OsStringExt as _;
    Ok(Batch {
        id: row.get(0)?,
        created: Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
        directory: std::ffi::OsString::from_vec(row.get(2)?).into(),
        title: row.get(3)?,
        spec: json(row, 4)?,
        states: BatchState::default(),
    })
}

fn with_states(connection: &Connection, mut batch: Batch) -> rusqlite::Result<Batch> {
    let mut select = connection.prepare_cached("SELECT state, count(*) FROM jobs WHERE batch = ?1 GROUP BY state")?;
    let mut rows = select.query([&batch.id])?;
    while let Some(row) = rows.next()? {
        let state = state(row, 0)?;
        let at = JobState::ALL.iter().position(|each| *each == state).unwrap_or(0);
        batch.states.0[at] = row.get::<_, i64>(1)?.unsigned_abs();
    }
    Ok(batch)
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let outcome: Option<String> = row.get(5)?;
    Ok(Job {
        place: usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
        id: row.get(1)?,
        spec: json(row, 2)?,
        state: state(row, 3)?,
        attempts: row.get::<_, i64>(4)?.unsigned_abs(),
        outcome: outcome.map(|_| json(row, 5)).transpose()?,
        spent: Spent { tokens: row.get::<_, i64>(6)?.unsigned_abs(), usd: row.get(7)? },
    })
}

fn insert(transaction: &Transaction<'_>, batch: &str, first: i64, jobs: &[NewJob]) -> rusqlite::Result<()> {
    let mut insert = transaction
        .prepare("INSERT INTO jobs (batch, place, id, spec, state, attempts) VALUES (?1, ?2, ?3, ?4, 'queued', 0)")?;
    for (place, job) in (first..).zip(jobs) {
        insert.execute(params![batch, place, job.id, job.spec.to_string()])?;
    }
    Ok(())
}

/// SQLite's numbers end before ours.
fn tokens(spent: &Spent) -> i64 {
    i64::try_from(spent.tokens).unwrap_or(i64::MAX)
}

/// A change, behind those of the jobs that ended before.
fn record(transaction: &Transaction<'_>, batch: &str, place: usize, recorded: &Recorded) -> rusqlite::Result<()> {
    let facts = Change { patch: Vec::new(), ..recorded.change.clone() };
    let facts = serde_json::to_string(&facts).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO changes (batch, place, ended, state, branch, facts, patch) VALUES (?1, ?2, \
             (SELECT coalesce(max(ended), 0) + 1 FROM changes WHERE batch = ?1), ?3, ?4, ?5, ?6)",
        )?
        .execute(params![batch, place as i64, recorded.state.name(), recorded.branch, facts, recorded.change.patch])
        .map(drop)
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<(usize, Recorded)> {
    let name: String = row.get(1)?;
    let state =
        ChangeState::read(&name).ok_or_else(|| unreadable(1, format!("`{name}` is no state of a change").into()))?;
    let facts: Change = serde_json::from_value(json(row, 3)?).map_err(|error| unreadable(3, error.into()))?;
    let change = Change { patch: row.get(4)?, ..facts };
    let place = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
    Ok((place, Recorded { change, state, branch: row.get(2)? }))
}

fn state(row: &Row<'_>, at: usize) -> rusqlite::Result<JobState> {
    let name: String = row.get(at)?;
    JobState::read(&name).ok_or_else(|| unreadable(at, format!("`{name}` is no state of a job").into()))
}

fn json(row: &Row<'_>, at: usize) -> rusqlite::Result<Value> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|error| unreadable(at, error.into()))
}

fn unreadable(at: usize, why: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, why)
}
