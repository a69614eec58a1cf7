// An older CPU for one process: CPUID without AVX-512, AVX-VNNI and AMX (the level of AVX2), for engines that offer no
// switch of their own. Linux on Intel CPUs with cpuid faulting: every CPUID instruction then raises SIGSEGV, and the
// handler answers it with bits taken out. What runs, runs at full speed; only the detection at start is slower.
//
//     cc -O2 -shared -fPIC -o cpumask.so cpumask.c && LD_PRELOAD=./cpumask.so program

#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };

static long faulting(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

// Bits of leaf 7 that are newer than AVX2: AVX-512 F DQ IFMA PF ER CD BW VL | VBMI VBMI2 VNNI BITALG VPOPCNTDQ |
// 4VNNIW 4FMAPS VP2INTERSECT AMX-BF16 FP16 AMX-TILE AMX-INT8; of its subleaf 1: AVX-VNNI BF16 AMX-FP16 AVX-IFMA and
// AVX-VNNI-INT8 AVX-NE-CONVERT AMX-COMPLEX AVX-VNNI-INT16 AVX10.
static const uint32_t B7 = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const uint32_t C7 = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const uint32_t D7 = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;
static const uint32_t A71 = 1u << 4 | 1u << 5 | 1u << 21 | 1u << 23;
static const uint32_t D71 = 1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19;

static void answer(int signal_number, siginfo_t *info, void *context) {
  (void)info;
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *at = (const uint8_t *)r[REG_RIP];
  if (at[0] != 0x0F || at[1] != 0xA2) {  // a real fault: let it happen again, without us
    signal(signal_number, SIG_DFL);
    return;
  }
  uint32_t leaf = r[REG_RAX], sub = r[REG_RCX], a, b, c, d;
  faulting(0);
  __cpuid_count(leaf, sub, a, b, c, d);
  faulting(1);
  if (leaf == 7 && sub == 0) b &= ~B7, c &= ~C7, d &= ~D7;
  if (leaf == 7 && sub == 1) a &= ~A71, d &= ~D71;
  r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d, r[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  sigaction(SIGSEGV, &action, 0);
  if (faulting(1) != 0) {
    static const char complaint[] = "cpumask: this CPU or kernel cannot hide its features (no cpuid_fault)\n";
    if (write(2, complaint, sizeof complaint - 1)) {}
    _exit(3);
  }
}
