/* A module whose one value is another object's. */
#include <Python.h>

#ifndef PREFIX
#define PREFIX PyInit_
#endif
#define CAT(a, b) a##b
#define INIT_FUNCTION(prefix, name) CAT(prefix, name)
#ifndef NAME
#define NAME _value
#endif
#ifndef FUNCTION
#define FUNCTION value
#endif

extern int FUNCTION(void);

static int execute(PyObject *module) {
  return PyModule_AddIntConstant(module, "value", FUNCTION());
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "value", NULL, 0, NULL, slots};

PyMODINIT_FUNC INIT_FUNCTION(PREFIX, NAME)(void) { return PyModuleDef_Init(&definition); }
