//! People who sign a part of a maker's names: what they may, and what they may not whatever they have.
//! The table is in docs/threat-model.md.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{Memory, Objects};
use support::{DOCUMENT, Story, forge_list};
use trust::key::Key;
use trust::{Change, Delegate, TrustError, Trusted, Validity};

/// A maker who lets eve sign `mail*`.
struct Shared {
    story: Story,
    eve: Key,
}

const MAIL: &str = "mail.appliance.json";

fn delegate(name: &str, part: &str, keys: &[&Key]) -> Delegate {
    let public = keys.iter().map(|key| key.public().unwrap()).collect();
    Delegate {
        name: name.to_owned(),
        part: vec![part.to_owned()],
        keys: (public, keys.len() as u64),
    }
}

impl Shared {
    fn new() -> Self {
        let shared = Self { story: Story::new(), eve: Key::generate().unwrap() };
        shared.name(&delegate("eve", "mail*", &[&shared.eve])).unwrap();
        shared
    }

    fn own(&self) -> [Key; 2] {
        [self.story.targets.clone(), self.story.online.clone()]
    }

    fn hers(&self) -> [Key; 2] {
        [self.eve.clone(), self.story.online.clone()]
    }

    fn name(&self, who: &Delegate) -> trust::Result<()> {
        self.name_with(who, &self.own())
    }

    fn name_with(&self, who: &Delegate, keys: &[Key]) -> trust::Result<()> {
        trust::delegate(&self.story.store, &self.story.own(), who, keys, Validity::default())
    }

    fn revoke(&self, keep: bool) {
        let (store, own) = (&self.story.store, self.story.own());
        trust::revoke(store, &own, "eve", keep, &self.own(), Validity::default()).unwrap();
    }

    fn put(&self, name: &str, content: &str, keys: &[Key]) -> trust::Result<()> {
        self.put_for(name, content, keys, Validity::default())
    }

    fn put_for(&self, name: &str, text: &str, keys: &[Key], days: Validity) -> trust::Result<()> {
        let put = Change::Put(text.as_bytes().to_vec());
        let changes = BTreeMap::from([(name.to_owned(), put)]);
        trust::change(&self.story.store, &self.story.own(), &changes, keys, days)
    }

    /// The host asks, and reads.
    fn ask(&self, name: &str) -> trust::Result<String> {
        self.story.ask()?;
        let asked = Trusted::refresh(&self.story.store, &self.story.host())?;
        asked.read(name, 1 << 20).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// The host reads what it believed last.
    fn kept(&self, name: &str) -> trust::Result<String> {
        let kept = Trusted::kept(&self.story.host(), None)?;
        kept.read(name, 1 << 20).map(|bytes| String::from_utf8(bytes).unwrap())
    }
}

#[test]
fn a_delegate_signs_its_part_and_nothing_else() {
    let shared = Shared::new();
    assert_eq!(shared.story.ask().unwrap(), "1");
    shared.put(MAIL, "hers", &shared.hers()).unwrap();
    shared.story.publish("2");
    let ask = || Trusted::refresh(&shared.story.store, &shared.story.host());
    let trusted = ask().unwrap();
    assert_eq!(trusted.read(MAIL, 10).unwrap(), b"hers");
    assert_eq!(trusted.read(DOCUMENT, 10).unwrap(), b"2");
    assert_eq!(trusted.names(), [MAIL, DOCUMENT]);
    assert_eq!(trusted.signed_by(MAIL).as_deref(), Some("eve"));
    assert_eq!(trusted.signed_by(DOCUMENT), None);
    let [said] = &trusted.delegates()[..] else { panic!("{:?}", trusted.delegates()) };
    assert_eq!(*said, delegate("eve", "mail*", &[&shared.eve]));
    // Offline, too.
    assert_eq!(shared.kept(MAIL).unwrap(), "hers");

    // Another's name, one outside of her part, and the maker's own words.
    for name in [DOCUMENT, "wiki.appliance.json", "maker.json"] {
        let refused = shared.put(name, "evil", &shared.hers());
        assert!(matches!(refused, Err(TrustError::Key { .. })), "{name}: {refused:?}");
    }
    // The maker does not sign in her place: it would be two who say what mail is.
    let refused = shared.put(MAIL, "not hers", &shared.own());
    assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
    // Whoever has her key and the online key puts it into her list all the same.
    let whole = shared.story.everything();
    for name in [DOCUMENT, "wiki.appliance.json", "mailbox/../web.appliance.json"] {
        forge_list(&shared.story, "eve", &[(name, "evil")], &shared.eve, None);
        let refused = ask().map(drop);
        let kind = matches!(refused, Err(TrustError::Forged { .. } | TrustError::Format { .. }));
        assert!(kind, "{name}: {refused:?}");
        assert_eq!(shared.kept(DOCUMENT).unwrap(), "2");
        shared.story.put_back(&whole);
    }
    // Nor does anybody else sign in her name.
    let mallory = Key::generate().unwrap();
    forge_list(&shared.story, "eve", &[(MAIL, "evil")], &mallory, None);
    let refused = ask().map(drop);
    assert!(matches!(refused, Err(TrustError::Forged { .. })), "{refused:?}");
    shared.story.put_back(&whole);
    assert_eq!(shared.ask(MAIL).unwrap(), "hers");
}

#[test]
fn a_delegate_who_was_revoked_counts_for_nothing() {
    for keep in [false, true] {
        let shared = Shared::new();
        shared.put(MAIL, "hers", &shared.hers()).unwrap();
        assert_eq!(shared.ask(MAIL).unwrap(), "hers");
        shared.revoke(keep);
        let refused = shared.put("mailer.appliance.json", "evil", &shared.hers());
        assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
        // She has her key still, and whoever runs the online key helps her.
        forge_list(&shared.story, "eve", &[(MAIL, "evil")], &shared.eve, None);
        let read = shared.ask(MAIL);
        match keep {
            true => assert_eq!(read.unwrap(), "hers", "as the maker signed it since"),
            false => assert!(matches!(read, Err(TrustError::NoDocument { .. })), "{read:?}"),
        }
        assert_eq!(shared.kept(DOCUMENT).unwrap(), "1");
    }
}

#[test]
fn an_old_list_of_a_delegate_is_refused() {
    let shared = Shared::new();
    shared.put(MAIL, "1", &shared.hers()).unwrap();
    assert_eq!(shared.ask(MAIL).unwrap(), "1");
    let old = forge_list(&shared.story, "eve", &[(MAIL, "1")], &shared.eve, None);
    shared.put(MAIL, "2", &shared.hers()).unwrap();
    assert_eq!(shared.ask(MAIL).unwrap(), "2");
    let whole = shared.story.everything();
    // A stolen online key says that the old list is the current one.
    forge_list(&shared.story, "eve", &[(MAIL, "1")], &shared.eve, Some(old));
    let refused = shared.ask(MAIL);
    assert!(matches!(refused, Err(TrustError::Rollback { .. })), "{refused:?}");
    assert_eq!(shared.kept(MAIL).unwrap(), "2");
    shared.story.put_back(&whole);
    // The same after she was revoked, and named again.
    shared.revoke(false);
    shared.ask(MAIL).unwrap_err();
    let again = shared.name(&delegate("eve", "mail*", &[&shared.eve]));
    assert!(matches!(again, Err(TrustError::Key { .. })), "her key has to sign: {again:?}");
    let [targets, online] = shared.own();
    let who = delegate("eve", "mail*", &[&shared.eve]);
    shared.name_with(&who, &[targets, online, shared.eve.clone()]).unwrap();
    forge_list(&shared.story, "eve", &[(MAIL, "1")], &shared.eve, Some(old));
    let refused = shared.ask(MAIL);
    assert!(matches!(refused, Err(TrustError::Rollback { .. })), "{refused:?}");
}

#[test]
fn who_has_signed_nothing_yet_or_too_long_ago_is_in_nobodys_way() {
    let shared = Shared::new();
    let [bob, carol] = [(); 2].map(|()| Key::generate().unwrap());
    shared.name(&delegate("bob", "blog", &[&bob, &carol])).unwrap();
    assert_eq!(shared.ask(DOCUMENT).unwrap(), "1");
    let [_, online] = shared.hers();
    let both = [bob.clone(), carol, online.clone()];
    shared.put("blog.appliance.json", "theirs", &both).unwrap();
    assert_eq!(shared.ask("blog.appliance.json").unwrap(), "theirs", "eve has no list");
    let alone = shared.put("blog.appliance.json", "his", &[bob, online.clone()]);
    assert!(matches!(alone, Err(TrustError::Key { .. })), "{alone:?}");
    let other = shared.put("blogger.appliance.json", "theirs", &both);
    assert!(matches!(other, Err(TrustError::Key { .. })), "blog is blog alone: {other:?}");
    // Hers ends, and the others' do not.
    let short = Validity { root: 1, targets: 0, fresh: 0 };
    shared.put_for(MAIL, "hers", &shared.hers(), short).unwrap();
    let again = |keys: &[Key]| {
        let (store, own) = (&shared.story.store, shared.story.own());
        trust::sign_again(store, &own, keys, Validity::default()).unwrap()
    };
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(!again(std::slice::from_ref(&online)));
    let ended = shared.ask(MAIL);
    assert!(matches!(&ended, Err(TrustError::Expired { role, .. }) if role == "eve"), "{ended:?}");
    assert_eq!(shared.ask("blog.appliance.json").unwrap(), "theirs");
    assert!(!again(&shared.hers()), "hers, and what says that it is current");
    assert_eq!(shared.ask(MAIL).unwrap(), "hers");
}

#[test]
fn parts_are_of_one_person_each_and_stay_theirs_when_keys_change() {
    let shared = Shared::new();
    let bob = Key::generate().unwrap();
    for part in ["mail", "mailbox*", "m*", "mail*"] {
        let refused = shared.name(&delegate("bob", part, &[&bob]));
        assert!(matches!(refused, Err(TrustError::Key { .. })), "{part}: {refused:?}");
    }
    for (name, part) in
        [("root", "x*"), ("Bob", "x*"), ("bob", "*"), ("bob", "x.y"), ("bob", "[x]")]
    {
        let refused = shared.name(&delegate(name, part, &[&bob]));
        assert!(matches!(refused, Err(TrustError::Key { .. })), "{name} {part}: {refused:?}");
    }
    shared.put(MAIL, "hers", &shared.hers()).unwrap();
    // The maker's own keys are others now: what eve signed stays.
    let own = shared.story.own();
    let [root, targets] = [(); 2].map(|()| Key::generate().unwrap());
    let roles = support::roles(&root, &targets, &shared.story.online);
    let old = [shared.story.root.clone(), shared.story.online.clone()];
    let all = [&old[..], &[root, targets.clone()]].concat();
    trust::rotate(&shared.story.store, &own, &roles, &all, Validity::default()).unwrap();
    assert_eq!(shared.ask(MAIL).unwrap(), "hers");
    // Hers are: what she signed is signed by the new one.
    let new = Key::generate().unwrap();
    let who = delegate("eve", "mail*", &[&new]);
    let keys = [targets, shared.story.online.clone(), new.clone()];
    shared.name_with(&who, &keys).unwrap();
    assert_eq!(shared.ask(MAIL).unwrap(), "hers");
    let refused = shared.put(MAIL, "evil", &shared.hers());
    assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
}

#[test]
fn what_delegates_signed_is_mirrored_and_its_loss_on_a_host_is_said() {
    let shared = Shared::new();
    shared.put(MAIL, "hers", &shared.hers()).unwrap();
    assert_eq!(shared.ask(MAIL).unwrap(), "hers");
    let mirror: Arc<dyn Objects> = Arc::new(Memory::new());
    let trusted = Trusted::refresh(&shared.story.store, &shared.story.host()).unwrap();
    trust::mirror(&shared.story.store, &trusted, &mirror).unwrap();
    let there = shared.story.folder.path().join("there");
    let read = Trusted::begin(&mirror, &shared.story.fingerprint, &there).unwrap();
    assert_eq!(read.read(MAIL, 10).unwrap(), b"hers");
    let file = shared.story.host().join("state/by-eve.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("mail.appliance", "mait.appliance")).unwrap();
    let damaged = shared.kept(DOCUMENT);
    assert!(matches!(damaged, Err(TrustError::Damaged { .. })), "{damaged:?}");
    std::fs::remove_file(&file).unwrap();
    let lost = shared.kept(DOCUMENT);
    assert!(matches!(lost, Err(TrustError::Damaged { .. })), "{lost:?}");
}
