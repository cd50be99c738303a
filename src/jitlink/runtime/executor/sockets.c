/* Sockets: addresses to listen at, and which clients are let in.
 *
 * With a token, a client sends it as a line before anything else. A client that sends another one, or
 * nothing in time, is told so by a hangup; it does not keep others from being let in.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "executor.h"

enum { MOST_CLIENTS = 16, MOST_TOKEN = 1024, TOKEN_SECONDS = 5 };

static char token[MOST_TOKEN + 2];
static size_t token_size; /* 0 if none is wanted */

static int fail(const char *what) {
  fprintf(stderr, "jitlink-executor: %s: %s\n", what, strerror(errno));
  return 1;
}

/* Tokens */

bool read_token(const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = 0;
  size_t size = 0;
  while (file >= 0 && size < sizeof token && (got = read(file, token + size, sizeof token - size)) > 0)
    size += (size_t)got;
  if (file < 0 || got < 0) {
    fail(path);
    return false;
  }
  close(file);
  while (size && (token[size - 1] == '\n' || token[size - 1] == '\r'))
    --size;
  token_size = size;
  if (!size || size > MOST_TOKEN || memchr(token, '\n', size)) {
    fprintf(stderr, "jitlink-executor: %s: not a line of 1 to %d bytes\n", path, MOST_TOKEN);
    return false;
  }
  return true;
}

struct client {
  int fd;
  int64_t until; /* when it must have sent a line */
  size_t size;
  char line[MOST_TOKEN];
};

/* Takes as long for every line. */
static bool has_token(const struct client *client) {
  volatile unsigned difference = client->size != token_size;
  for (size_t each = 0; each < token_size; ++each)
    difference |= (unsigned char)(client->line[each] ^ token[each]);
  return !difference;
}

/* Why a client is refused; null if it is not; empty if more is to come. Its descriptor is ready. */
static const char *read_line(struct client *client) {
  char byte;
  ssize_t got = read(client->fd, &byte, 1);
  if (got < 0 && errno == EINTR)
    return "";
  if (got <= 0)
    return "no token was sent";
  if (byte == '\n')
    return has_token(client) ? 0 : "the token is wrong";
  if (client->size == MOST_TOKEN)
    return "the token is wrong";
  client->line[client->size++] = byte;
  return "";
}

static void refuse(int fd, const char *why) {
  fprintf(stderr, "jitlink-executor: a client was refused: %s\n", why);
  hang_up(fd, why);
}

bool has_sent_token(int incoming, int outgoing) {
  struct client client = {incoming, milliseconds() + 1000 * TOKEN_SECONDS, 0, {0}};
  const char *why = token_size ? "" : 0;
  while (why && !*why) {
    struct pollfd polled = {incoming, POLLIN, 0};
    int left = milliseconds_until(client.until);
    if (left && poll(&polled, 1, left) < 0 && errno != EINTR)
      why = "no token was sent";
    else if (polled.revents)
      why = read_line(&client);
    else if (!left)
      why = "no token was sent in time";
  }
  if (why)
    refuse(outgoing, why);
  return !why;
}

static void remove_client(struct client *clients, unsigned *count, unsigned which, const char *why) {
  refuse(clients[which].fd, why);
  close(clients[which].fd);
  memmove(clients + which, clients + which + 1, (--*count - which) * sizeof *clients);
}

/* Accepts clients until one may stay; returns its descriptor, or -1 with a message written. */
static int admit(int listening) {
  struct client clients[MOST_CLIENTS];
  unsigned count = 0;
  int64_t end = timeout_seconds ? milliseconds() + 1000 * (int64_t)timeout_seconds : INT64_MAX;
  for (;;) {
    struct pollfd polled[MOST_CLIENTS + 1];
    unsigned known = count;
    int64_t until = end;
    for (unsigned each = 0; each < count; ++each) {
      polled[each] = (struct pollfd){clients[each].fd, POLLIN, 0};
      until = clients[each].until < until ? clients[each].until : until;
    }
    polled[count] = (struct pollfd){listening, POLLIN, 0};
    int ready = poll(polled, count + 1, milliseconds_until(until));
    if (ready < 0 && errno == EINTR)
      continue;
    if (ready < 0)
      return fail("cannot wait for clients"), -1;
    for (unsigned each = count; each-- > 0;) {
      const char *why = polled[each].revents ? read_line(&clients[each]) : "";
      if (!why) {
        int admitted = clients[each].fd;
        clients[each] = clients[--count];
        while (count)
          remove_client(clients, &count, 0, "another client has come first");
        return admitted;
      }
      if (!*why && clients[each].until <= milliseconds())
        why = "no token was sent in time";
      if (*why)
        remove_client(clients, &count, each, why);
    }
    if (polled[known].revents) {
      int accepted = accept4(listening, 0, 0, SOCK_CLOEXEC);
      if (accepted < 0 && errno != EINTR && errno != ECONNABORTED)
        return fail("cannot accept a connection"), -1;
      if (accepted >= 0 && !token_size)
        return accepted;
      if (accepted >= 0 && count == MOST_CLIENTS)
        remove_client(clients, &count, 0, "there are too many clients");
      if (accepted >= 0)
        clients[count++] =
            (struct client){accepted, milliseconds() + 1000 * TOKEN_SECONDS, 0, {0}};
    } else if (end <= milliseconds()) {
      while (count)
        remove_client(clients, &count, 0, "no token was sent in time");
      fprintf(stderr, "jitlink-executor: no client came within %u s\n", timeout_seconds);
      return -1;
    }
  }
}

/* Sockets */

static int serve_client(int connected) {
  int one = 1;
  setsockopt(connected, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  /* A client that is cut off is noticed, in hours. */
  setsockopt(connected, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  return serve(connected, connected);
}

/* Serves one client; closes the socket that listens, and removes its name if it has one. */
static int serve_one(int listening, const char *path) {
  int connected = admit(listening);
  close(listening);
  if (path)
    unlink(path); /* a sandbox would not let that be done later */
  if (connected < 0)
    return 1;
  return serve_client(connected);
}

int serve_socket(int connected) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(connected, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_STREAM) {
    fprintf(stderr, "jitlink-executor: descriptor %d is no stream socket\n", connected);
    return 1;
  }
  fcntl(connected, F_SETFD, FD_CLOEXEC);
  return has_sent_token(connected, connected) ? serve_client(connected) : 1;
}

static bool is_loopback(const struct sockaddr_storage *address) {
  if (address->ss_family == AF_INET)
    return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  return address->ss_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static void print_address(int listening) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getsockname(listening, (struct sockaddr *)&address, &size) ||
      getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV))
    return;
  if (!token_size && !is_loopback(&address))
    fprintf(stderr,
            "jitlink-executor: warning: any client that can connect to %s can run code here; "
            "--token-file is not used\n",
            host);
  printf(strchr(host, ':') ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
  fflush(stdout);
}

/* A socket that listens at an address; -1 sets errno. */
static int listen_on_one(const struct addrinfo *info) {
  int listening = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  if (listening < 0)
    return -1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!bind(listening, info->ai_addr, info->ai_addrlen) && !listen(listening, MOST_CLIENTS))
    return listening;
  int error = errno;
  close(listening);
  errno = error;
  return -1;
}

int listen_on(const char *text) {
  const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
  char host[NI_MAXHOST] = "127.0.0.1", *end;
  unsigned long number = strtoul(port, &end, 10);
  size_t size = colon ? (size_t)(colon - text) : 0;
  if (*port < '0' || *port > '9' || *end || number > UINT16_MAX || size >= sizeof host) {
    fprintf(stderr, "jitlink-executor: %s is not HOST:PORT, :PORT or PORT\n", text);
    return 1;
  }
  if (size > 2 && *text == '[' && colon[-1] == ']') {
    ++text;
    size -= 2;
  }
  if (size) {
    memcpy(host, text, size);
    host[size] = 0;
  }
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = 0;
  int problem = getaddrinfo(host, port, &hints, &found);
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

int listen_at(const char *path) {
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
                  !listen(listening, MOST_CLIENTS);
  umask(mask);
  if (!is_bound)
    return fail(path);
  printf("listening on %s\n", path);
  fflush(stdout);
  return serve_one(listening, path);
}
