/* Reads files that it keeps open with pread, one after the other, into memory that it goes round in: what fio's psync
 * does, but into as much memory as a run reads into.
 *
 *     psync_loop SECONDS PROCESSES MEMORY_BYTES BLOCK_BYTES FILE...
 *
 * Prints the bytes a second of all processes together. Each reads its part of the files.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double read_files(double seconds, size_t memory_bytes, size_t block_bytes, char **names, int count)
{
    int *files = calloc((size_t)count, sizeof(int));
    char *memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!files || memory == MAP_FAILED)
        return -1;
    madvise(memory, memory_bytes, MADV_HUGEPAGE);
    memset(memory, 1, memory_bytes);
    for (int i = 0; i < count; i++)
        if ((files[i] = open(names[i], O_RDONLY)) < 0)
            return -1;
    double begun_s = now_s(), bytes = 0;
    size_t at = 0;
    for (int i = 0;; i = (i + 1) % count) {
        ssize_t n = pread(files[i], memory + at, block_bytes, 0);
        if (n < 0)
            return -1;
        bytes += (double)n;
        at = at + 2 * block_bytes <= memory_bytes ? at + block_bytes : 0;
        if (now_s() - begun_s >= seconds)
            return bytes / (now_s() - begun_s);
    }
}

int main(int count, char **arguments)
{
    int processes = atoi(arguments[2]), files = (count - 5) / processes, channel[2];
    double sum = 0, one;
    if (pipe(channel) < 0)
        return 1;
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            one = read_files(atof(arguments[1]), strtoull(arguments[3], NULL, 10), strtoull(arguments[4], NULL, 10),
                             arguments + 5 + i * files, files);
            _exit(write(channel[1], &one, sizeof one) != sizeof one);
        }
    for (int i = 0; i < processes; i++) {
        if (read(channel[0], &one, sizeof one) != sizeof one || one < 0)
            return 1;
        sum += one;
    }
    while (wait(NULL) > 0) {}
    printf("%.0f\n", sum);
    return 0;
}
