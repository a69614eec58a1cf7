// A world that stands still, for counting instructions: no random numbers, and a clock that ticks evenly. So hash tables
// have one order, times one length, and two runs of a program execute the same instructions.
//
//     cc -O2 -shared -fPIC -o libstill.so still.c && LD_PRELOAD=./libstill.so program

#include <string.h>
#include <sys/types.h>
#include <time.h>

ssize_t getrandom(void *bytes, size_t length, unsigned flags) {
  (void)flags;
  memset(bytes, 0, length);
  return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static long ticks;
  (void)clock;
  now->tv_sec = 0;
  now->tv_nsec = ++ticks * 1000;
  return 0;
}
