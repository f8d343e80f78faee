/* The four memory functions that a compiler may call by itself: the init has no libc to take them from. */
#ifndef CYCONTAINER_INIT_MEMORY_H
#define CYCONTAINER_INIT_MEMORY_H

/* Without the attribute the compiler would make each a call of itself. */
#define OURS __attribute__((used, optimize("no-tree-loop-distribute-patterns")))
OURS void *memcpy(void *to, const void *from, unsigned long n) {
    for (unsigned long i = 0; i < n; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}
OURS void *memmove(void *to, const void *from, unsigned long n) {
    if ((char *)to < (const char *)from)
        return memcpy(to, from, n);
    while (n--)
        ((char *)to)[n] = ((const char *)from)[n];
    return to;
}
OURS void *memset(void *to, int value, unsigned long n) {
    for (unsigned long i = 0; i < n; i++)
        ((char *)to)[i] = (char)value;
    return to;
}
OURS int memcmp(const void *a, const void *b, unsigned long n) {
    for (unsigned long i = 0; i < n; i++)
        if (((const unsigned char *)a)[i] != ((const unsigned char *)b)[i])
            return ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];
    return 0;
}

#endif
