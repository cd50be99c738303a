/* An extension module with single-phase initialisation, and a type. */
#include <Python.h>

static PyObject *name(PyObject *module, PyObject *unused) { return PyModule_GetNameObject(module); }

static PyMethodDef methods[] = {{"name", name, METH_NOARGS, "The module's name."}, {0}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "single", "A module.", -1, methods,
};

PyMODINIT_FUNC PyInit_single(void) {
  PyObject *module = PyModule_Create(&definition);
  PyObject *error = PyErr_NewException("single.Error", NULL, NULL);
  return module && PyModule_AddObject(module, "Error", error) == 0 ? module : NULL;
}
