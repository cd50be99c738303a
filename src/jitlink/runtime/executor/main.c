/* The command: how the executor is reached. */
#include <stdio.h>

#include "executor.h"

static const char usage[] =
    "usage: jitlink-executor [OPTION]... CONNECTION\n"
    "\n"
    "Waits for a controller, which places code in this process and runs it.\n"
    "  filedescs=IN,OUT   read from one descriptor, write to the other\n"
    "  listen=HOST:PORT   accept one TCP connection at this address only; port 0 is any free one,\n"
    "                     without HOST the address is 127.0.0.1; also tcp:listen=HOST:PORT\n"
    "  socket=PATH        accept one connection at a Unix socket, which only this user can open\n"
    "  socket:adopt=FD    use a connected stream socket\n"
    "  --token-file=FILE  refuse clients that do not send the line in this file first\n"
    "  --timeout=SECONDS  end if no client comes, or nothing is to be done, for so long\n"
    "  --sandbox                      close the sandbox: no files, network and other processes\n"
    "  --sandbox-read=PATH            files below this directory can be read\n"
    "  --sandbox-write=PATH           ... and written\n"
    "  --sandbox-library=PATH         load this library, or later all in this directory\n"
    "  --sandbox-network              sockets of the families inet and inet6 can be used\n"
    "  --sandbox-memory=BYTES         limit of the address space of code and data\n"
    "  --sandbox-cpu-time=SECONDS     limit of processor time\n"
    "  --sandbox-processes=COUNT      processes can be forked, up to so many of this user\n"
    "  --sandbox-file-size=BYTES      limit of the size of files\n"
    "  --sandbox-kill                 what is forbidden ends the process, by SIGSYS\n"
    "  --sandbox-code=FD              sealed memory of the controller, for code\n"
    "  --sandbox-accept=FEATURE       go on if this system cannot enforce a feature: privileges,\n"
    "                                 cpu-time, file-size, processes, files, code, memory, network,\n"
    "                                 system-calls\n"
    "The address is printed once connections are accepted. A client can run any code here. Only\n"
    "jitlink's installed command has TLS: its options --tls-cert=FILE, --tls-key=FILE, --tls-ca=FILE.\n";

unsigned timeout_seconds;

static int serve_descriptors(const char *text) {
  int incoming, outgoing;
  char end;
  if (sscanf(text, "%d,%d%c", &incoming, &outgoing, &end) != 2)
    return -1;
  return has_sent_token(incoming, outgoing) ? serve(incoming, outgoing) : 1;
}

static int adopt(const char *text) {
  int connected;
  char end;
  return sscanf(text, "%d%c", &connected, &end) == 1 ? serve_socket(connected) : -1;
}

/* How to get a connection; the functions return an exit status, or -1 for words they do not know. */
static const struct connection {
  const char *prefix;
  int (*serve)(const char *text);
} connections[] = {
    {"filedescs=", serve_descriptors}, {"listen=", listen_on},     {"tcp:listen=", listen_on},
    {"socket=", listen_at},            {"socket:adopt=", adopt},
};

/* What follows a prefix; null if a word has another one. */
static const char *after(const char *word, const char *prefix) {
  size_t size = strlen(prefix);
  return strncmp(word, prefix, size) ? 0 : word + size;
}

/* Carries out an option; returns an exit status, or -1 if it is none. */
static int take_option(const char *word) {
  const char *path = after(word, "--token-file="), *seconds = after(word, "--timeout=");
  char end;
  if (path)
    return read_token(path) ? 0 : 1;
  if (!sandbox_option(word))
    return 0;
  return seconds && *seconds != '-' && sscanf(seconds, "%u%c", &timeout_seconds, &end) == 1 ? 0 : -1;
}

int main(int count, char **words) {
  const struct connection *connection = 0;
  const char *text = 0;
  int status = 0;
  for (int each = 1; each < count && !status; ++each) {
    const char *word = words[each];
    if (!strcmp(word, "--help"))
      return fputs(usage, stdout) < 0;
    if (!strncmp(word, "--", 2)) {
      status = take_option(word);
      continue;
    }
    status = text ? -1 : 0;
    for (size_t way = 0; way < sizeof connections / sizeof *connections && !text; ++way)
      if ((text = after(word, connections[way].prefix)))
        connection = &connections[way];
    status = text ? status : -1;
  }
  if (!status)
    status = connection ? connection->serve(text) : -1;
  if (status >= 0)
    return status;
  fputs(usage, stderr);
  return 2;
}
