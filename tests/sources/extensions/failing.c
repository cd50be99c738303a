/* Init functions that fail in each way. */
#include <Python.h>

PyMODINIT_FUNC PyInit_raises(void) {
  PyErr_SetString(PyExc_ValueError, "raised by the module");
  return NULL;
}

PyMODINIT_FUNC PyInit_silent(void) { return NULL; }

PyMODINIT_FUNC PyInit_unreported(void) {
  static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "unreported"};
  PyErr_SetString(PyExc_ValueError, "raised by the module");
  return PyModuleDef_Init(&definition);
}

extern int not_defined_anywhere(void);

PyMODINIT_FUNC PyInit_undefined(void) { return PyLong_FromLong(not_defined_anywhere()); }
