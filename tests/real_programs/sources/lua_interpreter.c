/* A Lua interpreter: runs a script with `arg` set, reports errors with a traceback, as lua does. */
#include <stddef.h>
#include <stdio.h>

typedef struct lua_State lua_State;
lua_State *luaL_newstate(void);
void luaL_openlibs(lua_State *);
void luaL_traceback(lua_State *, lua_State *of, const char *message, int level);
int luaL_loadfilex(lua_State *, const char *path, const char *mode);
int lua_pcallk(lua_State *, int arguments, int results, int handler, ptrdiff_t, void *);
void lua_createtable(lua_State *, int, int);
void lua_rawseti(lua_State *, int index, long long n);
const char *lua_pushstring(lua_State *, const char *);
void lua_pushcclosure(lua_State *, int (*)(lua_State *), int);
void lua_setglobal(lua_State *, const char *name);
const char *lua_tolstring(lua_State *, int index, size_t *length);
void lua_close(lua_State *);

static int traceback(lua_State *lua) {
  luaL_traceback(lua, lua, lua_tolstring(lua, 1, 0), 1);
  return 1;
}

int main(int argc, char **argv) {
  lua_State *lua = luaL_newstate();
  if (argc < 2 || !lua)
    return 2;
  luaL_openlibs(lua);
  lua_createtable(lua, argc, 0);
  for (int i = 1; i < argc; i++) {
    lua_pushstring(lua, argv[i]);
    lua_rawseti(lua, -2, i - 1);
  }
  lua_setglobal(lua, "arg");
  lua_pushcclosure(lua, traceback, 0);
  int status = luaL_loadfilex(lua, argv[1], 0) || lua_pcallk(lua, 0, 0, 1, 0, 0);
  if (status)
    fprintf(stderr, "lua: %s\n", lua_tolstring(lua, -1, 0));
  lua_close(lua);
  return status;
}
