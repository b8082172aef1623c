//! The one store, as each host reaches it: requests that are lost, whose answer is lost, that are
//! done twice, or late, after their client has given up, and so out of order.

use std::sync::Arc;

use bytes::Bytes;
use objects::{Features, ObjectError, ObjectMeta, Objects};

use crate::world::{Late, World};

/// One host's way to the store, in one of its lives.
pub struct Reached {
    pub world: Arc<World>,
    pub host: usize,
    pub life: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Becomes {
    Done,
    Lost,
    AnswerLost,
    Twice,
    Late,
    Full,
}

impl Reached {
    fn unavailable(&self) -> ObjectError {
        let detail = "simulated".to_owned();
        ObjectError::Unavailable { location: self.location(), detail }
    }

    /// Before a request: what becomes of it.
    fn ask(
        &self,
        verb: &str,
        key: &str,
        writes: bool,
        grows: bool,
    ) -> Result<Becomes, ObjectError> {
        if !self.world.point(self.host, self.life, &format!("{verb} {key}")) {
            return Err(self.unavailable());
        }
        let mut state = self.world.state();
        if grows && state.store_full {
            *state.faults.entry("store full").or_default() += 1;
            return Ok(Becomes::Full);
        }
        let faulty = state.faulty;
        if faulty == 0 || !state.chance.is(faulty) {
            return Ok(Becomes::Done);
        }
        let (becomes, name) = match (writes, state.chance.below(4)) {
            (false, _) | (true, 0) => (Becomes::Lost, "request lost"),
            (true, 1) => (Becomes::AnswerLost, "answer lost"),
            (true, 2) => (Becomes::Twice, "done twice"),
            (true, _) => (Becomes::Late, "late"),
        };
        *state.faults.entry(name).or_default() += 1;
        let host = self.host;
        state.event(host, &format!("    ({name})"));
        Ok(becomes)
    }

    fn write(
        &self,
        verb: &str,
        key: &str,
        grows: bool,
        late: impl FnOnce() -> Late,
        act: impl Fn() -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let result = match self.ask(verb, key, true, grows)? {
            Becomes::Done => act(),
            Becomes::Lost => return Err(self.unavailable()),
            Becomes::AnswerLost => {
                let _ = act();
                return Err(self.unavailable());
            }
            Becomes::Twice => {
                let first = act();
                let _ = act();
                first
            }
            Becomes::Late => {
                self.world.state().late.push(late());
                return Err(self.unavailable());
            }
            Becomes::Full => {
                let (location, detail) = (self.location(), "simulated".to_owned());
                return Err(ObjectError::NoSpace { location, detail });
            }
        };
        // Another chance to die, or to lose the turn: it is done, and nobody knows.
        if !self.world.point(self.host, self.life, &format!("{verb} done")) {
            return Err(self.unavailable());
        }
        result
    }

    fn read(&self, verb: &str, key: &str) -> Result<&dyn Objects, ObjectError> {
        match self.ask(verb, key, false, false)? {
            Becomes::Done => Ok(&*self.world.objects),
            _ => Err(self.unavailable()),
        }
    }
}

impl Objects for Reached {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.read("get", key)?.get(key, bytes_max)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.read("range", key)?.get_range(key, offset, bytes)
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let late = || Late::Create(key.to_owned(), bytes.clone());
        self.write("create", key, true, late, || self.world.objects.put_new(key, bytes.clone()))
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let late = || Late::Put(key.to_owned(), bytes.clone());
        self.write("put", key, true, late, || self.world.objects.put(key, bytes.clone()))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.read("list", prefix)?.list(prefix)
    }
    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        self.read("names", prefix)?.list_names(prefix)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        self.read("head", key)?.head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let late = || Late::Delete(key.to_owned());
        self.write("delete", key, false, late, || self.world.objects.delete(key))
    }
    fn features(&self) -> Features {
        Features { list: true, write: true }
    }
    fn location(&self) -> String {
        "simulated".to_owned()
    }
}
