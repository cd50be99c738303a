/* Messages, and the threads that carry out calls.
 *
 * A message is a header of four little-endian words (size, opcode, sequence number, tag) and a
 * payload. A thread reads messages. The main thread carries out calls, so that a program's main
 * runs on it; calls that arrive while it is busy are carried out by threads of their own, because
 * they may be what it waits for.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "executor.h"

enum { SETUP, HANGUP, RESULT, CALL, HEADER = 32 };
enum { GRACE_SECONDS = 2 };
#define MOST_BYTES ((uint64_t)1 << 40)

/* Bytes */

void put(struct bytes *bytes, const void *data, size_t size) {
  size_t capacity;
  if (bytes->capacity - bytes->size < size) {
    bool is_too_large = __builtin_add_overflow(2 * bytes->capacity, size, &capacity);
    char *grown = is_too_large ? 0 : realloc(bytes->data, capacity);
    if (!grown)
      abort();
    bytes->data = grown;
    bytes->capacity = capacity;
  }
  if (size)
    memcpy(bytes->data + bytes->size, data, size);
  bytes->size += size;
}

void put_u8(struct bytes *bytes, uint8_t value) { put(bytes, &value, 1); }

void put_u64(struct bytes *bytes, uint64_t value) {
  char encoded[8];
  sps_put_u64(encoded, value);
  put(bytes, encoded, sizeof encoded);
}

void put_text(struct bytes *bytes, const char *text) {
  put_u64(bytes, strlen(text));
  put(bytes, text, strlen(text));
}

wrapper_result result_of(struct bytes *bytes) {
  wrapper_result result = {{0}, bytes->size};
  if (bytes->size > sizeof result.value.bytes) {
    result.value.pointer = bytes->data;
  } else {
    if (bytes->size)
      memcpy(result.value.bytes, bytes->data, bytes->size);
    free(bytes->data);
  }
  return result;
}

wrapper_result expected_errno(const char *what) {
  char text[200];
  snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
  return sps_expected_failure(text);
}

/* The connection */

struct call { /* from the controller */
  uint64_t sequence, function;
  char *data;
  size_t size;
  bool is_for_main;
  struct call *next;
};

struct request { /* to the controller */
  uint64_t sequence;
  wrapper_result result;
  bool is_done;
  pthread_cond_t done;
  struct request *next;
};

static int incoming_fd, outgoing_fd;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct call *first_call;
static struct call **last_call = &first_call;
static struct request *requests;
static uint64_t next_sequence;
static bool is_idle; /* the main thread waits for a call, and none was left to it */
static unsigned running;
static bool is_ended;
static int status;
static sigset_t program_signals; /* which signals programs find blocked */
static int64_t last_used; /* when a call returned */

bool is_forked = false;

int64_t milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1000 * (int64_t)now.tv_sec + now.tv_nsec / 1000000;
}

int milliseconds_until(int64_t time) {
  int64_t left = time - milliseconds();
  return left < 0 ? 0 : left < INT32_MAX ? (int)left : INT32_MAX;
}

static bool is_late;

/* Waits until there is something to read. False once nothing has come, and no call was under way,
   for as long as the executor may be idle. */
static bool wait_for_input(void) {
  int64_t limit = 1000 * (int64_t)timeout_seconds, begin = milliseconds();
  while (limit && !is_late) {
    pthread_mutex_lock(&lock);
    int64_t since = last_used > begin ? last_used : begin;
    int left = milliseconds_until(limit + (running || first_call ? milliseconds() : since));
    pthread_mutex_unlock(&lock);
    struct pollfd polled = {incoming_fd, POLLIN, 0};
    is_late = !left;
    if (left && poll(&polled, 1, left) > 0)
      return true;
  }
  return !limit;
}

static bool read_all(void *place, size_t size) {
  for (char *next = place; size;) {
    if (!wait_for_input())
      return false;
    ssize_t got = read(incoming_fd, next, size);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return false;
    next += got;
    size -= (size_t)got;
  }
  return true;
}

/* With `writing` held: sends a message through a descriptor. */
static bool write_message(int outgoing, uint64_t opcode, uint64_t sequence, uint64_t tag,
                          const void *data, size_t size) {
  char header[HEADER], *place = header;
  place = sps_put_u64(place, HEADER + size);
  place = sps_put_u64(place, opcode);
  place = sps_put_u64(place, sequence);
  sps_put_u64(place, tag);
  struct iovec parts[2] = {{header, HEADER}, {(void *)(uintptr_t)data, size}};
  bool is_sent = true;
  sigset_t broken_pipe, before;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  /* The program's own SIGPIPE is as the system has it. */
  pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
  while (is_sent && parts[0].iov_len + parts[1].iov_len) {
    ssize_t count = writev(outgoing, parts, 2);
    if (count < 0 && errno == EINTR)
      continue;
    is_sent = count >= 0;
    for (unsigned each = 0; is_sent && each < 2; ++each) {
      size_t done = (size_t)count < parts[each].iov_len ? (size_t)count : parts[each].iov_len;
      parts[each].iov_base = (char *)parts[each].iov_base + done;
      parts[each].iov_len -= done;
      count -= (ssize_t)done;
    }
  }
  if (!is_sent && errno == EPIPE && !sigismember(&before, SIGPIPE)) {
    static const struct timespec now = {0, 0};
    sigtimedwait(&broken_pipe, 0, &now);
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
  return is_sent;
}

static bool send_message(uint64_t opcode, uint64_t sequence, uint64_t tag, const void *data,
                         size_t size) {
  pthread_mutex_lock(&writing);
  bool is_sent = write_message(outgoing_fd, opcode, sequence, tag, data, size);
  pthread_mutex_unlock(&writing);
  return is_sent;
}

void send_notice(const void *tag, const void *data, size_t size) {
  send_message(CALL, UINT64_MAX, (uintptr_t)tag, data, size);
}

void hang_up(int outgoing, const char *reason) {
  struct pollfd polled = {outgoing, POLLOUT, 0};
  if (pthread_mutex_trylock(&writing))
    return;
  /* What is that short can be written without waiting, if anything can. */
  if (poll(&polled, 1, 0) == 1 && polled.revents == POLLOUT) {
    struct bytes error = {0};
    put_u8(&error, 1);
    put_text(&error, reason);
    write_message(outgoing, HANGUP, 0, 0, error.data, error.size);
    free(error.data);
  }
  pthread_mutex_unlock(&writing);
}

/* Calls to the controller */

/* With the lock held: the link to a request; to null if there is none of that number. */
static struct request **find_request(uint64_t sequence) {
  struct request **link = &requests;
  while (*link && (*link)->sequence != sequence)
    link = &(*link)->next;
  return link;
}

/* With the lock held: complete a request. */
static void complete(struct request **link, wrapper_result result) {
  struct request *request = *link;
  *link = request->next;
  request->result = result;
  request->is_done = true;
  pthread_cond_signal(&request->done);
}

/* The dispatch function: has the controller handle a call, and waits for that. */
static wrapper_result dispatch(void *context, const void *tag, const char *data, size_t size) {
  (void)context;
  struct request request = {.done = PTHREAD_COND_INITIALIZER};
  pthread_mutex_lock(&lock);
  if (is_ended) {
    pthread_mutex_unlock(&lock);
    return sps_out_of_band("the connection has ended");
  }
  request.sequence = next_sequence++;
  request.next = requests;
  requests = &request;
  pthread_mutex_unlock(&lock);
  bool is_sent = send_message(CALL, request.sequence, (uintptr_t)tag, data, size);
  pthread_mutex_lock(&lock);
  if (!is_sent && !request.is_done)
    complete(find_request(request.sequence), sps_out_of_band("the connection has ended"));
  while (!request.is_done)
    pthread_cond_wait(&request.done, &lock);
  pthread_mutex_unlock(&lock);
  pthread_cond_destroy(&request.done);
  return request.result;
}

static bool handle_result(uint64_t sequence, char *data, size_t size) {
  struct bytes bytes = {data, size, size};
  pthread_mutex_lock(&lock);
  struct request **link = find_request(sequence);
  bool is_known = *link != 0;
  if (is_known)
    complete(link, result_of(&bytes));
  else
    free(data);
  pthread_mutex_unlock(&lock);
  return is_known;
}

/* Calls from the controller */

static void carry_out(struct call *call, bool is_main) {
  wrapper_result (*function)(const char *, size_t) =
      (wrapper_result(*)(const char *, size_t))(uintptr_t)call->function;
  wrapper_result result = function(call->data, call->size);
  if (is_forked)
    exit(0); /* there is nothing to return to; functions that know a status exit themselves */
  if (is_main) {
    /* The next call may arrive before this thread waits for it. It is left to this thread all the
       same: calls one after another run on one thread, which interrupts are for. */
    pthread_mutex_lock(&lock);
    is_idle = !first_call;
    pthread_mutex_unlock(&lock);
  }
  if (!result.size && result.value.pointer)
    /* An out-of-band error, for which the protocol has no message. */
    fprintf(stderr, "jitlink-executor: a call failed: %s\n", result.value.pointer);
  send_message(RESULT, call->sequence, 0, sps_bytes(&result), result.size);
  sps_free(&result);
  free(call->data);
  free(call);
}

/* With the lock held: take the call that a link leads to; null if that is the end. */
static struct call *take_from(struct call **link) {
  struct call *call = *link;
  if (call && !(*link = call->next))
    last_call = link;
  return call;
}

/* With the lock held: take a call, on other threads only one that is not left to the main thread; null
   if there is none. */
static struct call *take_call(bool is_main) {
  struct call **link = &first_call;
  while (*link && (*link)->is_for_main && !is_main)
    link = &(*link)->next;
  return take_from(link);
}

/* With the lock held: carry out calls until there is none, or for the main thread until the end. */
static void work(bool is_main) {
  for (;;) {
    while (!first_call && is_main && !is_ended) {
      is_idle = true;
      pthread_cond_wait(&changed, &lock);
    }
    if (is_main)
      is_idle = false;
    struct call *call = take_call(is_main);
    if (!call)
      return;
    ++running;
    pthread_mutex_unlock(&lock);
    carry_out(call, is_main);
    pthread_mutex_lock(&lock);
    --running;
    last_used = milliseconds();
    pthread_cond_broadcast(&changed);
  }
}

static void *work_apart(void *unused) {
  (void)unused;
  pthread_sigmask(SIG_SETMASK, &program_signals, 0); /* not those of the thread that reads */
  char stack[ALTERNATE_STACK];
  use_alternate_stack(stack, sizeof stack);
  pthread_mutex_lock(&lock);
  work(false);
  pthread_mutex_unlock(&lock);
  leave_alternate_stack(stack);
  return 0;
}

static bool start_thread(void *(*function)(void *)) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  bool is_started = !pthread_create(&thread, &attributes, function, 0);
  pthread_attr_destroy(&attributes);
  return is_started;
}

/* Has a call fail that no thread can be started for, unless another thread has come to it: what those
   do may need its result. */
static void refuse(const struct call *refused) {
  pthread_mutex_lock(&lock);
  struct call **link = &first_call;
  while (*link && *link != refused)
    link = &(*link)->next;
  struct call *call = take_from(link);
  pthread_mutex_unlock(&lock);
  if (!call)
    return;
  fputs("jitlink-executor: a call failed: no thread can be started for it\n", stderr);
  send_message(RESULT, call->sequence, 0, 0, 0);
  free(call->data);
  free(call);
}

static void add_call(uint64_t sequence, uint64_t function, char *data, size_t size) {
  struct call *call = malloc(sizeof *call);
  if (!call)
    abort();
  pthread_mutex_lock(&lock);
  bool is_apart = !is_idle;
  *call = (struct call){sequence, function, data, size, !is_apart, 0};
  *last_call = call;
  last_call = &call->next;
  is_idle = false;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  if (is_apart && !start_thread(work_apart))
    refuse(call);
}

/* Reading */

static const char *handle_message(void) {
  char header[HEADER];
  if (!read_all(header, 1))
    return ""; /* the end, where it may be */
  if (!read_all(header + 1, HEADER - 1))
    return "the connection ended within a message";
  sps_reader reader = sps_read(header, HEADER);
  uint64_t size = sps_u64(&reader), opcode = sps_u64(&reader) & 0xff;
  uint64_t sequence = sps_u64(&reader), tag = sps_u64(&reader);
  if (size < HEADER || size > MOST_BYTES)
    return "a message has an impossible size";
  if (opcode != HANGUP && opcode != RESULT && opcode != CALL)
    return "a message has an unexpected opcode";
  char *data = malloc(size - HEADER + 1);
  if (!data)
    return "a message is too large";
  if (!read_all(data, size - HEADER)) {
    free(data);
    return "the connection ended within a message";
  }
  if (opcode == HANGUP) {
    /* It was read, because a socket with something unread is reset when it is closed. */
    free(data);
    return "";
  }
  if (opcode == CALL)
    add_call(sequence, tag, data, size - HEADER);
  else if (!handle_result(sequence, data, size - HEADER))
    return "a result belongs to no call";
  return 0;
}

static void *read_messages(void *unused) {
  const char *end;
  sigset_t all;
  (void)unused;
  /* Signals are the program's, on the threads that run it. */
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, 0);
  while (!(end = handle_message()))
    ;
  /* LLVM 22's controllers wait for the end of a socket before they end; a hangup would be an error. */
  if (is_late)
    end = "nothing was to be done for as long as the timeout";
  else if (*end)
    hang_up(outgoing_fd, end);
  if (*end)
    fprintf(stderr, "jitlink-executor: %s\n", end);
  pthread_mutex_lock(&lock);
  status = *end != 0;
  is_ended = true;
  while (requests)
    complete(&requests, sps_out_of_band("the connection has ended"));
  pthread_cond_broadcast(&changed);
  /* The controller has gone: a program that goes on is ended. */
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += GRACE_SECONDS;
  while (running || first_call)
    if (pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT)
      _exit(1);
  pthread_mutex_unlock(&lock);
  return 0;
}

/* Forked processes: the connection is that of the process that has forked. */

static void leave_connection(void) {
  pthread_mutex_t unlocked = PTHREAD_MUTEX_INITIALIZER;
  close(incoming_fd);
  close(outgoing_fd);
  incoming_fd = outgoing_fd = -1;
  /* Threads that are not here may have held them. */
  lock = writing = unlocked;
  requests = 0;
  is_ended = is_forked = true;
}

/* The setup */

static const struct bootstrap_symbol *const all_symbols[] = {
    protocol_symbols, memory_symbols, shared_memory_symbols, dylib_symbols,
    address_symbols,  access_symbols, run_symbols,           registration_symbols,
    sandbox_symbols,  crash_symbols,
};

static bool send_setup(void) {
  struct bytes bytes = {0};
  uint64_t count = 0;
  put_text(&bytes, JITLINK_TRIPLE);
  put_u64(&bytes, (uint64_t)sysconf(_SC_PAGESIZE));
  put_u64(&bytes, 0);
  for (size_t table = 0; table < sizeof all_symbols / sizeof *all_symbols; ++table)
    for (const struct bootstrap_symbol *each = all_symbols[table]; each->name; ++each)
      ++count;
  put_u64(&bytes, count);
  for (size_t table = 0; table < sizeof all_symbols / sizeof *all_symbols; ++table)
    for (const struct bootstrap_symbol *each = all_symbols[table]; each->name; ++each) {
      put_text(&bytes, each->name);
      put_u64(&bytes, (uintptr_t)each->address);
    }
  bool is_sent = send_message(SETUP, 0, 0, bytes.data, bytes.size);
  free(bytes.data);
  return is_sent;
}

int serve(int incoming, int outgoing) {
  if (!close_sandbox(incoming, outgoing))
    return 1;
  incoming_fd = incoming;
  outgoing_fd = outgoing;
  fcntl(incoming, F_SETFD, FD_CLOEXEC);
  fcntl(outgoing, F_SETFD, FD_CLOEXEC);
  pthread_sigmask(SIG_BLOCK, 0, &program_signals);
  pthread_atfork(0, 0, leave_connection);
  static char stack[ALTERNATE_STACK];
  use_alternate_stack(stack, sizeof stack);
  if (!send_setup() || !start_thread(read_messages)) {
    perror("jitlink-executor: cannot begin");
    return 1;
  }
  pthread_mutex_lock(&lock);
  work(true);
  while (running)
    pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  finish_shared_memory();
  finish_memory();
  return status;
}

static char instance;
const struct bootstrap_symbol protocol_symbols[] = {
    {"__llvm_orc_SimpleRemoteEPC_dispatch_ctx", &instance},
    {"__llvm_orc_SimpleRemoteEPC_dispatch_fn", (const void *)dispatch},
    {0, 0},
};
