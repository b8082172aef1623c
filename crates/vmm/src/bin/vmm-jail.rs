//! The jail's entry point alone, for this crate's own tests: `vmm-jail __jail ...`.

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == "__jail") {
        vmm::jail_main(arguments);
    }
    eprintln!("usage: vmm-jail __jail ...");
    std::process::exit(2);
}
