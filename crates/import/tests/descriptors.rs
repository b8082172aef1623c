//! Descriptor files of VMDK disks, whole and hostile.

use import::guard::vmdk::{Descriptor, ExtentKind};
use proptest::prelude::*;

fn descriptor(extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"x\"\n{extents}\nddb.adapterType = \"ide\"\n"
    )
}

#[track_caller]
fn refused(text: &str, why: &str) {
    let error = Descriptor::parse(text).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn extents_are_read_in_order() {
    let text = descriptor(
        "RW 8 FLAT \"a b.vmdk\" 16\nRDONLY 4 ZERO\nRW 2 VMFS \"a b.vmdk\"\nRW 1 SPARSE \"c.vmdk\"",
    );
    let read = Descriptor::parse(&text).unwrap();
    assert_eq!(read.virtual_bytes().unwrap(), 15 * 512);
    assert_eq!(read.files(), ["a b.vmdk", "c.vmdk"]);
    assert_eq!(read.extents[0].kind, ExtentKind::Flat { offset_sectors: 16 });
    let canonical = read.canonical(|index| format!("e{index}"));
    for line in ["RW 8 FLAT \"e0\" 16", "RW 4 ZERO", "RW 2 FLAT \"e0\" 0", "RW 1 SPARSE \"e1\""] {
        assert!(canonical.lines().any(|l| l == line), "{line} is not in {canonical}");
    }
    assert!(!canonical.contains("a b.vmdk"));
    // What we write, we read.
    assert_eq!(Descriptor::parse(&canonical).unwrap().virtual_bytes().unwrap(), 15 * 512);
}

#[test]
fn what_leads_elsewhere_is_refused() {
    for file in
        ["/etc/shadow", "../a.vmdk", "a/b.vmdk", "C:\\\\a.vmdk", "", ".hidden", "nbd:unix:x"]
    {
        refused(&descriptor(&format!("RW 8 FLAT \"{file}\" 0")), "plain name");
    }
    refused(&descriptor("RW 8 FLAT \"a\" 0").replace("ffffffff", "12345678"), "parent");
    refused(&descriptor("parentFileNameHint=\"/b.vmdk\"\nRW 8 FLAT \"a\" 0"), "parent");
    refused(&descriptor("NOACCESS 8 FLAT \"a\" 0"), "extent");
    refused(&descriptor("RW 8 VMFSRDM \"a\""), "extent");
    refused(&descriptor("RW x FLAT \"a\""), "extent");
    refused(&descriptor("RW 99999999999999 FLAT \"a\" 0"), "more than");
    refused(&descriptor("RW 18446744073709551615 ZERO\nRW 2 ZERO"), "beyond");
    refused(&descriptor(""), "no extents");
    refused("nonsense", "line");
}

proptest! {
    #[test]
    fn noise_never_panics(text in "[ -~\n]{0,400}", words in proptest::collection::vec("(RW|FLAT|SPARSE|ZERO|\"a\"|\"|=|[0-9]{1,20}| |\n|parentCID)", 0..40)) {
        let _ = Descriptor::parse(&text);
        if let Ok(read) = Descriptor::parse(&words.join(" ")) {
            for file in read.files() {
                prop_assert!(import::names::plain(file));
            }
            let again = Descriptor::parse(&read.canonical(|index| format!("e{index}"))).unwrap();
            prop_assert_eq!(again.virtual_bytes().unwrap(), read.virtual_bytes().unwrap());
        }
    }
}
