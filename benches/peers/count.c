// QEMU plugin (user mode, plugin API 1): how many instructions a program has run, written when it ends.
//
//     cc -O2 -shared -fPIC -o libcount.so count.c && qemu-aarch64 -plugin ./libcount.so,out=FILE program
//
// The entry points are declared here, because Debian packages no header for them.

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct block;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct block *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
extern void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct block *);

enum { ADD_U64 = 0 };

int qemu_plugin_version = 1;

static uint64_t instructions;
static char out[4096];

// Runs once per translated block; what it registers, an addition, runs at each of the block's executions.
static void translated(uint64_t id, struct block *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions, qemu_plugin_tb_n_insns(block));
}

static void ended(uint64_t id, void *data) {
  (void)id, (void)data;
  FILE *file = fopen(out, "w");
  if (file) fprintf(file, "%" PRIu64 "\n", instructions), fclose(file);
}

int qemu_plugin_install(uint64_t id, const void *info, int count, char **words) {
  (void)info;
  if (count != 1 || strncmp(words[0], "out=", 4) || strlen(words[0]) >= sizeof out) return -1;
  strcpy(out, words[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, 0);
  return 0;
}
