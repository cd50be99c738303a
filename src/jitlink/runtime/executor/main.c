/* The command: how the executor is reached. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "executor.h"

static const char usage[] =
    "usage: jitlink-executor [OPTION]... filedescs=IN,OUT | listen=HOST:PORT | socket=PATH\n"
    "\n"
    "Waits for a controller, which places code in this process and runs it.\n"
    "  filedescs=IN,OUT  read from one descriptor, write to the other\n"
    "  listen=HOST:PORT  accept one TCP connection at this address only; port 0 is any free one\n"
    "  socket=PATH       accept one connection at a Unix socket, which only this user can open\n"
    "The address is printed once connections are accepted. Every client can run code here.\n"
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
    "                                 system-calls\n";

static int fail(const char *what) {
  fprintf(stderr, "jitlink-executor: %s: %s\n", what, strerror(errno));
  return 1;
}

/* Accepts one connection, removes the socket's name, and serves it. */
static int serve_one(int listening, const char *path) {
  int connected;
  do
    connected = accept(listening, 0, 0);
  while (connected < 0 && errno == EINTR);
  close(listening);
  if (path)
    unlink(path);
  if (connected < 0)
    return fail("cannot accept a connection");
  int one = 1;
  setsockopt(connected, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return serve(connected, connected);
}

static void print_address(int listening) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (!getsockname(listening, (struct sockaddr *)&address, &size) &&
      !getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                   NI_NUMERICHOST | NI_NUMERICSERV))
    printf(strchr(host, ':') ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
  fflush(stdout);
}

/* A socket that listens at an address; -1 sets errno. */
static int listen_on_one(const struct addrinfo *info) {
  int listening = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  if (listening < 0)
    return -1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!bind(listening, info->ai_addr, info->ai_addrlen) && !listen(listening, 1))
    return listening;
  int error = errno;
  close(listening);
  errno = error;
  return -1;
}

static int listen_on(char *text) {
  char *colon = strrchr(text, ':'), *host = text;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = 0;
  if (!colon) {
    fprintf(stderr, "jitlink-executor: %s is not HOST:PORT\n", text);
    return 1;
  }
  *colon = 0;
  if (*host == '[' && colon > host && colon[-1] == ']') {
    colon[-1] = 0;
    ++host;
  }
  int problem = getaddrinfo(*host ? host : "localhost", colon + 1, &hints, &found);
  if (problem) {
    fprintf(stderr, "jitlink-executor: %s: %s\n", host, gai_strerror(problem));
    return 1;
  }
  int listening = -1;
  for (struct addrinfo *each = found; each && listening < 0; each = each->ai_next)
    listening = listen_on_one(each);
  freeaddrinfo(found);
  if (listening < 0)
    return fail("cannot listen");
  print_address(listening);
  return serve_one(listening, 0);
}

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return fail(path);
  }
  memcpy(address.sun_path, path, strlen(path) + 1);
  int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  /* The name is there with its permissions at once. */
  mode_t mask = umask(0177);
  bool is_bound = listening >= 0 && !bind(listening, (struct sockaddr *)&address, sizeof address) &&
                  !listen(listening, 1);
  umask(mask);
  if (!is_bound)
    return fail(path);
  printf("listening on %s\n", path);
  fflush(stdout);
  return serve_one(listening, path);
}

/* Takes options out of the words; returns how many are left. */
static int take_options(int count, char **words) {
  int left = 0;
  for (int each = 0; each < count; ++each)
    if (!each || sandbox_option(words[each]))
      words[left++] = words[each];
  return left;
}

int main(int count, char **words) {
  int incoming, outgoing;
  char end;
  count = take_options(count, words);
  /* A word that is not understood may be meant to forbid something. */
  const char *word = count == 2 ? words[1] : "";
  if (sscanf(word, "filedescs=%d,%d%c", &incoming, &outgoing, &end) == 2)
    return serve(incoming, outgoing);
  if (!strncmp(word, "listen=", 7))
    return listen_on(words[1] + 7);
  if (!strncmp(word, "socket=", 7))
    return listen_at(word + 7);
  fputs(usage, !strcmp(word, "--help") ? stdout : stderr);
  return strcmp(word, "--help") ? 2 : 0;
}
