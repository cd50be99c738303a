/* An executor: a process in which a controller places and runs code.
 *
 * It speaks the SimpleRemoteEPC protocol of LLVM's ORC, with the services of LLVM 22. Every service
 * is a wrapper function: serialized arguments in, a serialized result out (../wrapper.h).
 */
#ifndef JITLINK_EXECUTOR_H
#define JITLINK_EXECUTOR_H

#include "../wrapper.h"

/* A symbol that the setup message names. */
struct bootstrap_symbol {
  const char *name;
  const void *address;
};

/* The services, one table a file; each ends with a null name. */
extern const struct bootstrap_symbol protocol_symbols[], memory_symbols[], shared_memory_symbols[],
    dylib_symbols[], address_symbols[], access_symbols[], run_symbols[], registration_symbols[],
    sandbox_symbols[], crash_symbols[];

/* Bytes that grow. Memory that cannot be had ends the process: a controller sees that. */
struct bytes {
  char *data;
  size_t size, capacity;
};

void put(struct bytes *bytes, const void *data, size_t size);
void put_u8(struct bytes *bytes, uint8_t value);
void put_u64(struct bytes *bytes, uint64_t value);
void put_text(struct bytes *bytes, const char *text);

/* Turn bytes into a result, which owns them. */
wrapper_result result_of(struct bytes *bytes);
/* The failure of a function that returns an Expected, with that of errno. */
wrapper_result expected_errno(const char *what);

/* Sequence<T>(Sequence<Addr>): what a function adds for each address. */
wrapper_result for_addresses(const char *data, size_t size,
                             void (*put_value)(const void *address, struct bytes *bytes));

/* Allocation actions: pairs of calls, for when memory is initialised and when it is freed. */
struct action {
  wrapper_result (*function)(const char *data, size_t size);
  char *data;
  size_t size;
};

struct actions {
  struct action *each; /* the deallocate halves, in order */
  size_t count;
};

/* Read pairs, and run the finalize halves in order. If one fails, undo those before it and return
   its message, in memory of malloc; null is success. */
char *run_finalize_actions(sps_reader *reader, struct actions *actions);
/* Run the deallocate halves in reverse order, and forget them. Add messages of failures. */
void run_deallocate_actions(struct actions *actions, struct bytes *failures);
void add_failure(struct bytes *failures, const char *text);
/* ERROR: success if there are no failures; takes ownership. */
wrapper_result error_of(struct bytes *failures);

/* Run the deallocate actions that are left when the connection has ended. */
void finish_memory(void);
void finish_shared_memory(void);

/* Share sealed memory of the controller's, which is writable there only, instead of memory with a
   name; returns its size, and 0 if it is not sealed or cannot be mapped. */
uint64_t adopt_shared_memory(int file);

/* /proc/self/maps, if it cannot be opened any more; -1 otherwise. */
extern int mappings_file;
/* Read the system's list of mappings into a place, and return its size. Allocates nothing. */
enum { MAPPINGS_SIZE = 1 << 17 }; /* usually enough */
size_t read_mappings(char *place, size_t most);
/* All of the list, after so many bytes that the caller writes. */
struct bytes all_mappings(size_t before);

/* Record an option of the sandbox; returns -1 if a word is none. */
int sandbox_option(const char *word);
/* Close the sandbox, if there are options of it: this process can do no more than they allow from
   then on. False, with messages, if that cannot be enforced. */
bool close_sandbox(int incoming, int outgoing);

/* The stack for signal handlers of the calling thread, until it leaves that, or uses another. */
enum { ALTERNATE_STACK = 1 << 16 };
void use_alternate_stack(char *stack, size_t size);
void leave_alternate_stack(const char *stack);

/* Load the libraries that may define a name, which programs expect in their process; all of them, if
   there is no name. */
void load_providers(const char *name);

/* A function of the unwinder that frames are registered with; null if there is none. */
void *find_in_unwinder(const char *name);

/* Send a call that the controller does not answer. Allocates nothing. */
void send_notice(const void *tag, const void *data, size_t size);

/* Whether this process was forked by linked code: it has no controller. */
extern bool is_forked;

/* Serve a controller until it hangs up; returns the exit status. */
int serve(int incoming, int outgoing);
/* Hang up, with a reason, on a controller or client; does not wait for it. */
void hang_up(int outgoing, const char *reason);

/* Seconds after which an executor ends that has no client, or is idle; 0 for never. */
extern unsigned timeout_seconds;
/* The time, of a clock that only goes forward. */
int64_t milliseconds(void);
/* What is left until a time, as an argument of poll. */
int milliseconds_until(int64_t time);

/* Have all clients send the line in a file first; writes a message if it cannot be read. */
bool read_token(const char *path);
/* Whether the other side of a connection has sent the token, if one is wanted; waits for it. */
bool has_sent_token(int incoming, int outgoing);
/* Serve one client at an address, at a path, or at the other end of a socket; return the exit
   status. */
int listen_on(const char *address);
int listen_at(const char *path);
int serve_socket(int connected);

#endif
