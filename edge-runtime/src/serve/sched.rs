//! Priority and core of the thread that runs the network.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::config::{Policy, Sched};

/// Applies a setting to the calling thread.
///
/// # Errors
/// What the system does not permit, and what would help. The thread goes on as it was.
pub fn apply(sched: Sched) -> Result<(), String> {
    let mut faults = vec![];
    if let Some(cpu) = sched.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
    {
        faults.push(format!("core {cpu} is not there or not permitted, so the thread is on any core"));
    }
    let policy = match sched.policy {
        Policy::Other => None,
        Policy::Fifo => Some(RealtimeThreadSchedulePolicy::Fifo),
        Policy::Rr => Some(RealtimeThreadSchedulePolicy::RoundRobin),
    };
    if let Some(policy) = policy {
        let priority = sched.priority.try_into().map(ThreadPriority::Crossplatform);
        let set = priority.map_err(|error| format!("{error:?}")).and_then(|priority| {
            let policy = ThreadSchedulePolicy::Realtime(policy);
            set_thread_priority_and_policy(thread_native_id(), priority, policy).map_err(|error| format!("{error:?}"))
        });
        if let Err(error) = set {
            faults.push(format!(
                "real-time scheduling is not permitted ({error}), so the thread shares the CPU with all others: allow it \
                 with the capability CAP_SYS_NICE or with LimitRTPRIO={} in the unit of systemd",
                sched.priority
            ));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}
