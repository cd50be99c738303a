/* Crash reports: what a signal has found that ends the process, for the controller.
 *
 * Only a controller that asks for them gets any. The handlers are the dispositions that a program
 * finds at its start: those that it installs itself take their place. A handler collects the
 * registers and the frames of the thread, sends them, and has the signal end the process.
 *
 * A handler may have interrupted anything, so it allocates nothing. What it cannot do without may
 * fail: the unwinder reads memory that may be damaged, and the connection may be locked. A signal
 * during the unwinding makes the handler send what it has, one after that ends the process at once,
 * and a timer is such a signal.
 *
 * Specification: POSIX, "Signal Actions"; unwinder: LSB Core, "Interfaces for libgcc_s".
 */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <unwind.h>

#include "../machine.h"
#include "executor.h"

enum { MOST_FRAMES = 128, PATIENCE_SECONDS = 2 };

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

static const char *const names[] = {REGISTER_NAMES};

enum { REGISTERS = sizeof names / sizeof *names };

/* What was found. */
static int signal_number;
static bool has_address;
static uint64_t address, registers[REGISTERS];
static struct frame {
  uint64_t counter;
  bool is_exact; /* and not the address that a call returns to */
} frames[MOST_FRAMES];
static size_t frame_count;

/* Unwinding */

static _Unwind_Reason_Code (*backtrace)(_Unwind_Trace_Fn, void *);
static _Unwind_Ptr (*counter_in)(struct _Unwind_Context *, int *);
static const void *(*find_description)(const void *, void *bases);

static _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *is_inside) {
  int is_exact = 0;
  uint64_t counter = counter_in(context, &is_exact);
  if (!*(bool *)is_inside) {
    /* The handler's own frames come first. */
    *(bool *)is_inside = counter == frames[frame_count - 1].counter;
    return _URC_NO_REASON;
  }
  if (!counter || frame_count == MOST_FRAMES)
    return _URC_END_OF_STACK;
  frames[frame_count++] = (struct frame){counter, is_exact};
  return _URC_NO_REASON;
}

static void add_callers(void) {
  bool is_inside = false;
  if (backtrace && counter_in)
    backtrace(add_frame, &is_inside);
}

/* Whether the unwinder knows the function at an address; if not, it reads what is there. */
static bool is_described(uint64_t counter) {
  void *bases[3];
  return find_description && find_description((const void *)(uintptr_t)counter, bases);
}

static void collect(int number, const siginfo_t *info, ucontext_t *context) {
  signal_number = number;
  address = (uintptr_t)info->si_addr;
  /* Not of a signal that was sent, nor where the processor does not say. */
  has_address = info->si_code > 0 && info->si_code != SI_KERNEL && number != SIGSYS;
  for (size_t each = 0; each < REGISTERS; ++each)
    registers[each] = register_at(context, each);
  frames[frame_count++] = (struct frame){counter_of(context), true};
  bool is_nowhere = has_address && address == frames[0].counter;
  if (!is_nowhere || is_described(address))
    add_callers();
  if (frame_count == 1 && is_nowhere) {
    return_from_call(context);
    frames[frame_count++] = (struct frame){counter_of(context), false};
    add_callers();
  }
}

/* Sending */

static const void *tag;

/* Int32 signal, Optional<UInt64> address, Sequence<Tuple<String, UInt64>> registers,
   Sequence<Tuple<UInt64, Bool>> frames, Sequence<Char> mappings */
static void send_report(void) {
  static char report[2048 + 9 * MOST_FRAMES + MAPPINGS_SIZE];
  char *place = report;
  for (int each = 0; each < 4; ++each)
    *place++ = (char)(signal_number >> 8 * each);
  *place++ = has_address;
  if (has_address)
    place = sps_put_u64(place, address);
  place = sps_put_u64(place, REGISTERS);
  for (size_t each = 0; each < REGISTERS; ++each) {
    place = sps_put_text(place, names[each], strlen(names[each]));
    place = sps_put_u64(place, registers[each]);
  }
  place = sps_put_u64(place, frame_count);
  for (size_t each = 0; each < frame_count; ++each) {
    place = sps_put_u64(place, frames[each].counter);
    *place++ = frames[each].is_exact;
  }
  size_t size = read_mappings(place + 8, MAPPINGS_SIZE);
  place = sps_put_u64(place, size) + size;
  send_notice(tag, report, (size_t)(place - report));
}

/* Signals */

static pid_t owner;
static pthread_t reporter; /* the first thread that crashed */
static bool is_sending;

static _Noreturn void end_by(int number) {
  sigset_t only;
  signal(number, SIG_DFL);
  sigemptyset(&only);
  sigaddset(&only, number);
  pthread_sigmask(SIG_UNBLOCK, &only, 0);
  raise(number);
  _exit(128 + number); /* no signal ends the first process of a container */
}

static struct sigaction action_of_signals(void);

static void limit_time(void) {
  struct sigaction action = action_of_signals();
  sigset_t only;
  sigaction(SIGALRM, &action, 0);
  sigemptyset(&only);
  sigaddset(&only, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &only, 0);
  alarm(PATIENCE_SECONDS);
}

static _Noreturn void send_and_end(void) {
  if (!__atomic_exchange_n(&is_sending, true, __ATOMIC_SEQ_CST)) {
    limit_time();
    send_report();
  }
  end_by(signal_number);
}

static void handle(int number, siginfo_t *info, void *context) {
  pthread_t none = 0, self = pthread_self();
  if (getpid() != owner)
    end_by(number); /* of a forked process, which has no controller */
  if (__atomic_compare_exchange_n(&reporter, &none, self, false, __ATOMIC_SEQ_CST,
                                  __ATOMIC_SEQ_CST)) {
    limit_time();
    collect(number, info, context);
    send_and_end();
  }
  if (number == SIGALRM || none == self)
    send_and_end();
  for (;;)
    pause(); /* another thread ends the process */
}

static struct sigaction action_of_signals(void) {
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  action.sa_sigaction = handle;
  sigfillset(&action.sa_mask);
  sigdelset(&action.sa_mask, SIGALRM);
  for (size_t each = 0; each < sizeof signals / sizeof *signals; ++each)
    sigdelset(&action.sa_mask, signals[each]);
  return action;
}

void use_alternate_stack(char *stack, size_t size) {
  stack_t alternate = {.ss_sp = stack, .ss_size = size};
  sigaltstack(&alternate, 0);
}

void leave_alternate_stack(const char *stack) {
  stack_t alternate;
  if (!sigaltstack(0, &alternate) && alternate.ss_sp == stack) {
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, 0);
  }
}

/* Error(UInt64 tag): the tag of reports, which are not answered. */
static wrapper_result report_crashes(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  const void *given = sps_address(&reader);
  if (reader.failed)
    return sps_malformed();
  tag = given;
  owner = getpid();
  *(void **)&counter_in = find_in_unwinder("_Unwind_GetIPInfo");
  *(void **)&backtrace = find_in_unwinder("_Unwind_Backtrace");
  *(void **)&find_description = find_in_unwinder("_Unwind_Find_FDE");
  /* Its first call may load and allocate. */
  frame_count = 1;
  frames[0] = (struct frame){0, true};
  add_callers();
  frame_count = 0;
  struct sigaction action = action_of_signals(), before;
  for (size_t each = 0; each < sizeof signals / sizeof *signals; ++each)
    if (!sigaction(signals[each], 0, &before) && before.sa_handler == SIG_DFL)
      sigaction(signals[each], &action, 0);
  return sps_zero_byte();
}

const struct bootstrap_symbol crash_symbols[] = {
    {"__jitlink_executor_report_crashes", (const void *)report_crashes},
    {0, 0},
};
