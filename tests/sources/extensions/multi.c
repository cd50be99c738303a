/* An extension module with multi-phase initialisation. */
#include <Python.h>

static int initialisers;
static int lock_held;

__attribute__((constructor)) static void initialise(void) {
  initialisers++;
  lock_held = PyGILState_Check();
  Py_XDECREF(PyUnicode_FromString("made by an initialiser"));
}

static PyObject *name(PyObject *module, PyObject *unused) { return PyModule_GetNameObject(module); }

static PyMethodDef methods[] = {{"name", name, METH_NOARGS, "The module's name."}, {0}};

static int execute(PyObject *module) {
  return PyModule_AddIntConstant(module, "initialisers", initialisers) ||
                 PyModule_AddIntConstant(module, "lock_held", lock_held)
             ? -1
             : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "multi", "A module.", 0, methods, slots,
};

PyMODINIT_FUNC PyInit_multi(void) { return PyModuleDef_Init(&definition); }
PyMODINIT_FUNC PyInit_other(void) { return PyModuleDef_Init(&definition); }
PyMODINIT_FUNC PyInitU_grn_ioa(void) { return PyModuleDef_Init(&definition); }
