//! Which system calls a command is refused. A list of what is dangerous, not of what is allowed: what a compiler or an
//! interpreter needs changes with each of their versions, and who breaks them is no sandbox but a fault.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::{Namespaces, Plan};

/// Bit that marks a system call of x86-64's second set (x32), which reaches the same calls.
const X32: i64 = 0x4000_0000;
/// Numbers that only x32 has; old kernels take them without the bit, too.
const X32_ONLY: std::ops::RangeInclusive<i64> = 512..=547;

/// Refused with EPERM, whatever the arguments.
const DENIED: &[libc::c_long] = &[
    // Other processes' memory, descriptors and execution.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Files by handle, past the folders on the way.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // The kernel's keys, programs and measurements: large, and no command's business.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
];
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// Refused as if the kernel didn't have them: programs then go another way. io_uring makes sockets past any filter;
/// clone3 has its flags where a filter cannot see them; userfaultfd stops the kernel in the middle of a copy.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clone3,
    libc::SYS_userfaultfd,
];
/// Likewise, where no namespace keeps them apart or no cgroup counts them: System V's memory and queues stay when all
/// processes have gone.
const ABSENT_IPC: &[libc::c_long] = &[libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget];
/// Likewise, where memory is counted by process: a file in memory is no process's.
const ABSENT_MEMORY: &[libc::c_long] = &[libc::SYS_memfd_create, libc::SYS_memfd_secret];

/// What changes another process of the same user, and the arguments that must be zero for it to be the caller itself.
/// Refused otherwise where nothing else keeps a command from the agent: no other user, no namespace.
const FOREIGN: &[(libc::c_long, &[u8])] = &[
    (libc::SYS_prlimit64, &[0]),
    (libc::SYS_sched_setaffinity, &[0]),
    (libc::SYS_sched_setscheduler, &[0]),
    (libc::SYS_sched_setparam, &[0]),
    (libc::SYS_sched_setattr, &[0]),
    (libc::SYS_setpriority, &[0, 1]),
    (libc::SYS_ioprio_set, &[1]),
];
/// Each of these makes a namespace (CLONE_NEWTIME is unshare's and clone3's only).
const NEW_NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Terminals take these as input typed by their user.
const TYPE_INTO_TERMINAL: [u64; 2] = [0x5412 /* TIOCSTI */, 0x541C /* TIOCLINUX */];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs of the filter, to be applied one after the other. Calls by another architecture's numbers (`int 0x80`)
/// end the process: each program begins by checking that.
pub(super) fn programs(plan: Plan) -> io::Result<[BpfProgram; 2]> {
    let build = || {
        let refuse = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
        Ok([
            program(denied(plan)?, refuse(libc::EPERM))?,
            program(absent(plan), refuse(libc::ENOSYS))?,
        ])
    };
    build().map_err(|error: seccompiler::Error| io::Error::other(error))
}

fn program(rules: Rules, action: SeccompAction) -> Result<BpfProgram, seccompiler::Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()?)
}

fn denied(plan: Plan) -> Result<Rules, seccompiler::Error> {
    let mut rules = Rules::new();
    for call in DENIED.iter().chain(DENIED_HERE) {
        insert(&mut rules, *call, &[]);
    }
    if cfg!(target_arch = "x86_64") {
        rules.extend(X32_ONLY.flat_map(|call| [(call, vec![]), (call | X32, vec![])]));
    }
    // A socket, even a local one, has names outside the workspace to go to, which Landlock doesn't judge. A connected pair
    // has none, but for datagrams, which may be sent to any name.
    insert(&mut rules, libc::SYS_socket, &[]);
    let local = libc::AF_UNIX.unsigned_abs().into();
    let kind =
        |kind: libc::c_int| where_(1, SeccompCmpOp::MaskedEq(0xf), kind.unsigned_abs().into());
    let pairs = [
        SeccompRule::new(vec![where_(0, SeccompCmpOp::Ne, local)?])?,
        SeccompRule::new(vec![kind(libc::SOCK_DGRAM)?])?,
        SeccompRule::new(vec![kind(libc::SOCK_RAW)?])?,
    ];
    insert(&mut rules, libc::SYS_socketpair, &pairs);
    let new = NEW_NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        SeccompRule::new(vec![where_(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    let new: Vec<SeccompRule> = new.collect::<Result<_, _>>()?;
    insert(&mut rules, libc::SYS_clone, &new);
    let typing = TYPE_INTO_TERMINAL
        .iter()
        .map(|request| SeccompRule::new(vec![where_(1, SeccompCmpOp::Eq, *request)?]));
    let typing: Vec<SeccompRule> = typing.collect::<Result<_, _>>()?;
    insert(&mut rules, libc::SYS_ioctl, &typing);
    for (call, arguments) in FOREIGN.iter().filter(|_| !plan.apart() && !plan.own_user) {
        let other = arguments
            .iter()
            .map(|argument| SeccompRule::new(vec![where_(*argument, SeccompCmpOp::Ne, 0)?]));
        let other: Vec<SeccompRule> = other.collect::<Result<_, _>>()?;
        insert(&mut rules, *call, &other);
    }
    Ok(rules)
}

fn absent(plan: Plan) -> Rules {
    let mut calls = ABSENT.to_vec();
    if plan.namespaces == Namespaces::None || !plan.cgroup {
        calls.extend(ABSENT_IPC);
    }
    if !plan.cgroup {
        calls.extend(ABSENT_MEMORY);
    }
    let mut rules = Rules::new();
    for call in calls {
        insert(&mut rules, call, &[]);
    }
    rules
}

fn insert(rules: &mut Rules, call: libc::c_long, when: &[SeccompRule]) {
    rules.insert(call, when.to_vec());
    if cfg!(target_arch = "x86_64") {
        rules.insert(call | X32, when.to_vec());
    }
}

/// A condition on an argument. The kernel looks at the lower half of these only, and so does the filter.
fn where_(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
