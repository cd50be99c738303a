/* Allocation actions: calls that belong to memory. */
#include "executor.h"

static char *copy_of(const unsigned char *data, size_t size) {
  char *copy = malloc(size + 1);
  if (!copy)
    abort();
  memcpy(copy, data, size);
  copy[size] = 0;
  return copy;
}

/* Runs an action; returns the message of a failure, in memory of malloc, or null. */
static char *run(const struct action *action) {
  wrapper_result result = action->function(action->data, action->size);
  char *message = 0;
  if (!result.size)
    return result.value.pointer; /* null, or an out-of-band error */
  sps_reader reader = sps_read(sps_bytes(&result), result.size);
  if (sps_bool(&reader))
    message = sps_string(&reader);
  if (reader.failed && !message)
    message = strdup("an action returned no error value");
  sps_free(&result);
  return message;
}

static struct action read_action(sps_reader *reader) {
  struct action action = {0};
  uint64_t function = sps_u64(reader);
  size_t size = sps_count(reader, 1);
  const unsigned char *data = sps_take(reader, size);
  if (!reader->failed && function) {
    action.function = (wrapper_result(*)(const char *, size_t))(uintptr_t)function;
    action.data = copy_of(data, size);
    action.size = size;
  }
  return action;
}

char *run_finalize_actions(sps_reader *reader, struct actions *actions) {
  size_t count = sps_count(reader, 32);
  *actions = (struct actions){calloc(count + 1, sizeof *actions->each), 0};
  if (!actions->each)
    abort();
  char *message = reader->failed ? strdup("malformed arguments") : 0;
  for (size_t each = 0; each < count && !message; ++each) {
    struct action finalize = read_action(reader), deallocate = read_action(reader);
    if (reader->failed)
      message = strdup("malformed arguments");
    else if (finalize.function)
      message = run(&finalize);
    free(finalize.data);
    if (message || !deallocate.function)
      free(deallocate.data);
    else
      actions->each[actions->count++] = deallocate;
  }
  if (message) {
    struct bytes failures = {0};
    run_deallocate_actions(actions, &failures);
    free(failures.data);
  }
  return message;
}

void run_deallocate_actions(struct actions *actions, struct bytes *failures) {
  while (actions->count) {
    struct action *action = &actions->each[--actions->count];
    char *message = run(action);
    if (message)
      add_failure(failures, message);
    free(message);
    free(action->data);
  }
  free(actions->each);
  actions->each = 0;
}

void add_failure(struct bytes *failures, const char *text) {
  if (failures->size)
    put(failures, "\n", 1);
  put(failures, text, strlen(text));
}

wrapper_result error_of(struct bytes *failures) {
  if (!failures->size) {
    free(failures->data);
    return sps_zero_byte();
  }
  put(failures, "", 1);
  wrapper_result result = sps_failure(failures->data);
  free(failures->data);
  return result;
}
