/* Runs the Lua script whose path is the first argument; `arg` is the second. */
#include <stddef.h>
#include <stdio.h>

typedef struct lua_State lua_State;
lua_State *luaL_newstate(void);
void luaL_openlibs(lua_State *);
int luaL_loadfilex(lua_State *, const char *path, const char *mode);
int lua_pcallk(lua_State *, int arguments, int results, int handler, ptrdiff_t, void *);
const char *lua_pushstring(lua_State *, const char *);
void lua_setglobal(lua_State *, const char *name);
const char *lua_tolstring(lua_State *, int index, size_t *length);
void lua_close(lua_State *);

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    lua_State *lua = luaL_newstate();
    luaL_openlibs(lua);
    lua_pushstring(lua, argv[1]);
    lua_setglobal(lua, "arg");
    int status = luaL_loadfilex(lua, argv[0], NULL) || lua_pcallk(lua, 0, 0, 0, 0, NULL);
    if (status)
        fprintf(stderr, "%s\n", lua_tolstring(lua, -1, NULL));
    lua_close(lua);
    return status;
}
