/* Included ahead of each module's C: under the limited API, Cython's start-up would import `inspect` (and with it ast,
   dis, re, tokenize: 20 ms and more) for seven numbers. They are here: Include/cpython/code.h, the same since 3.6. And
   it would import `collections` (2 ms) for two classes which stand in a module that is always there, and `types` (1 ms)
   for two more, which any function has. */
#ifndef CYCONTAINER_LIMITED_API_H
#define CYCONTAINER_LIMITED_API_H
#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <string.h>

#ifdef Py_LIMITED_API
#define CO_OPTIMIZED       0x0001
#define CO_NEWLOCALS       0x0002
#define CO_VARARGS         0x0004
#define CO_VARKEYWORDS     0x0008
#define CO_GENERATOR       0x0020
#define CO_COROUTINE       0x0080
#define CO_ASYNC_GENERATOR 0x0200

/* What `types` calls MethodType and CodeType, of a class method that the import system has. */
static inline PyObject *make_types(void) {
    PyObject *importlib = PyImport_ImportModule("_frozen_importlib");
    PyObject *importer = importlib ? PyObject_GetAttrString(importlib, "BuiltinImporter") : NULL;
    PyObject *method = importer ? PyObject_GetAttrString(importer, "find_spec") : NULL;
    PyObject *code = method ? PyObject_GetAttrString(method, "__code__") : NULL;
    PyObject *made = code ? PyModule_New("types") : NULL;
    if (made && (PyObject_SetAttrString(made, "MethodType", (PyObject *)Py_TYPE(method)) < 0 ||
                 PyObject_SetAttrString(made, "CodeType", (PyObject *)Py_TYPE(code)) < 0))
        Py_CLEAR(made);
    Py_XDECREF(code);
    Py_XDECREF(method);
    Py_XDECREF(importer);
    Py_XDECREF(importlib);
    return made;
}

/* The module, imported; of `inspect` nothing is needed, and None stands for it. */
static inline PyObject *import_leanly(const char *name) {
    static PyObject *types = NULL; /* kept as long as the process lives */
    if (strcmp(name, "inspect") == 0)
        return Py_NewRef(Py_None);
    if (strcmp(name, "types") == 0) {
        types = types ? types : make_types();
        return Py_XNewRef(types);
    }
    return PyImport_ImportModule(strcmp(name, "collections.abc") == 0 ? "_collections_abc" : name);
}
#define PyImport_ImportModule import_leanly
#endif
#endif
