//! The system calls that QEMU has no business with.
//!
//! A list of what is refused, not of what is allowed: QEMU's own `-sandbox` and landlock stand
//! beside it, and a list of everything that QEMU and its libraries may ever call breaks with
//! each release. Refused calls fail with `EPERM`, so that a guest never dies of a probe.
//!
//! One rule is about speed: QEMU marks guest memory `MADV_HUGEPAGE`, after which the kernel reads
//! 2 MiB around every page fault of a memory file. Refusing it (QEMU ignores that) keeps
//! faults at one page plus the readahead that the file system asks for.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

const REFUSED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The file system's shape.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_mknodat,
    // Namespaces and keys.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // The host's clock and name.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Calls that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_mknod, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Puts the filters on this process, for good. `network`: it may have internet sockets.
pub(super) fn apply(network: bool) -> Result<(), String> {
    for program in [refused(network), no_huge_pages()] {
        let program = program.map_err(|error| format!("seccomp: {error}"))?;
        apply_filter(&program).map_err(|error| format!("seccomp: {error}"))?;
    }
    if cfg!(target_arch = "x86_64") {
        apply_filter(&no_x32()).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(())
}

type Built = Result<BpfProgram, seccompiler::BackendError>;

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Built {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(errno as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}

fn refused(network: bool) -> Built {
    let all = REFUSED.iter().chain(REFUSED_HERE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = all.map(|&call| (call, vec![])).collect();
    // A pair of connected sockets reaches nobody; a new socket is refused by family.
    let allowed: &[i32] = if network { &[libc::AF_INET, libc::AF_INET6] } else { &[] };
    let sockets = match allowed {
        [] => vec![],
        families => vec![SeccompRule::new(
            families
                .iter()
                .map(|&family| {
                    let family = family as u64;
                    SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
                })
                .collect::<Result<_, _>>()?,
        )?],
    };
    rules.insert(libc::SYS_socket, sockets);
    filter(rules, libc::EPERM)
}

fn no_huge_pages() -> Built {
    let advice = libc::MADV_HUGEPAGE as u64;
    let is_huge = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, advice)?;
    let rule = SeccompRule::new(vec![is_huge])?;
    filter(BTreeMap::from([(libc::SYS_madvise, vec![rule])]), libc::EINVAL)
}

/// The x32 calls have numbers of their own from bit 30 up, by which every rule above could be
/// passed: all of them are refused.
fn no_x32() -> BpfProgram {
    const X32: u32 = 1 << 30;
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let is_x32 = sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: X32,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    vec![
        load_number,
        is_x32,
        statement(libc::BPF_RET | libc::BPF_K, refuse),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}
