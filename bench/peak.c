/* peak COMMAND...: runs it, its output thrown away, and prints its peak resident memory in KB. A process of this size
   must start it: what it was forked from counts, too. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct rusage usage;
    int status;
    pid_t pid = argc > 1 ? fork() : -1;
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0), dup2(null, 1), dup2(null, 2);
        execv(argv[1], argv + 1);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) < 0 || !WIFEXITED(status))
        return 127;
    printf("%ld\n", usage.ru_maxrss);
    return WEXITSTATUS(status);
}
