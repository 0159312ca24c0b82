/* Makes the nth call to the system fail, of those that saving a file is made of. Preloaded into a Python; armed by it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

static int countdown = -1, code, armed;
static const char *failed = "";

void arm(int nth, int error) { countdown = nth; code = error; failed = ""; armed = 1; }
/* The name of the call that was made to fail, "" where fewer than n calls were made. */
const char *disarm(void) { armed = 0; countdown = -1; return failed; }

static int fails(const char *name) {
    if (!armed || countdown < 0 || countdown-- > 0)
        return 0;
    failed = name;
    errno = code;
    return 1;
}

#define WRAP(type, name, parameters, arguments)                             \
    type name parameters {                                                  \
        static type (*real) parameters;                                     \
        if (!real)                                                          \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);             \
        if (fails(#name))                                                   \
            return (type)-1;                                                \
        return real arguments;                                              \
    }

#define WRAP_OPEN(name, parameters, arguments)                              \
    int name parameters {                                                   \
        static int (*real) parameters;                                      \
        mode_t mode = 0;                                                    \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        if (flags & (O_CREAT | O_TMPFILE))                                  \
            mode = va_arg(rest, mode_t);                                    \
        va_end(rest);                                                       \
        if (!real)                                                          \
            real = (int (*) parameters)dlsym(RTLD_NEXT, #name);             \
        if (fails(#name))                                                   \
            return -1;                                                      \
        return real arguments;                                              \
    }

WRAP_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
WRAP_OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
WRAP(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size))
WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(ssize_t, pread, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(ssize_t, pread64, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, renameat, (int from_folder, const char *from, int to_folder, const char *to),
     (from_folder, from, to_folder, to))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
WRAP(int, stat, (const char *path, struct stat *status), (path, status))
WRAP(int, stat64, (const char *path, struct stat64 *status), (path, status))
WRAP(int, lstat, (const char *path, struct stat *status), (path, status))
WRAP(int, lstat64, (const char *path, struct stat64 *status), (path, status))
WRAP(int, fstat, (int fd, struct stat *status), (fd, status))
WRAP(int, fstat64, (int fd, struct stat64 *status), (fd, status))
WRAP(int, fstatat, (int folder, const char *path, struct stat *status, int flags), (folder, path, status, flags))
WRAP(int, fstatat64, (int folder, const char *path, struct stat64 *status, int flags), (folder, path, status, flags))
WRAP(int, faccessat, (int folder, const char *path, int mode, int flags), (folder, path, mode, flags))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, fchown, (int fd, uid_t owner, gid_t group), (fd, owner, group))
WRAP(int, flock, (int fd, int operation), (fd, operation))
WRAP(ssize_t, listxattr, (const char *path, char *list, size_t size), (path, list, size))
WRAP(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size), (path, name, value, size))
WRAP(int, fsetxattr, (int fd, const char *name, const void *value, size_t size, int flags),
     (fd, name, value, size, flags))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode))

/* A close that fails has closed all the same, on Linux. */
int close(int fd) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    if (!fails("close"))
        return real(fd);
    real(fd);
    errno = code;
    return -1;
}

DIR *fdopendir(int fd) {
    static DIR *(*real)(int);
    if (!real)
        real = (DIR * (*)(int)) dlsym(RTLD_NEXT, "fdopendir");
    return fails("fdopendir") ? NULL : real(fd);
}

#define WRAP_FCNTL(name)                                                    \
    int name(int fd, int command, ...) {                                    \
        static int (*real)(int, int, void *);                               \
        va_list rest;                                                       \
        va_start(rest, command);                                            \
        void *argument = va_arg(rest, void *);                              \
        va_end(rest);                                                       \
        if (!real)                                                          \
            real = (int (*)(int, int, void *))dlsym(RTLD_NEXT, #name);      \
        return fails(#name) ? -1 : real(fd, command, argument);             \
    }

WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)
