/* What a module registers for the end of the process, and when that is called. */
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>

extern const char *zlibVersion(void);

static void say(const char *text) {
  fputs(text, stdout);
  fflush(stdout);
}

static void finalised(void) { say("interpreter finalised\n"); }
static void exited(void) { say("exit handler\n"); }

__attribute__((destructor)) static void finalise(void) { say("finaliser\n"); }

static PyModuleDef_Slot slots[] = {{0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "at_exit", NULL, 0, NULL, slots};

PyMODINIT_FUNC PyInit_at_exit(void) {
  if (!zlibVersion()[0] || Py_AtExit(finalised) || atexit(exited))
    return NULL;
  return PyModuleDef_Init(&definition);
}
