/* Preloaded into a writer: keeps, beside its files, what is surely on the disk. In the folder $POWER_LOSS_DISK,
 * after msync(2) of a mapped range `NAME` has these bytes at their place, and after fsync(2) of a folder `names` has the
 * names of all that is in it. Everything else may be lost when the power goes, in whole or by sectors. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void keep(const char *file, uintptr_t at, size_t size, uint64_t offset)
{
    char path[4096];
    const char *name = strrchr(file, '/');
    snprintf(path, sizeof path, "%s/%s", getenv("POWER_LOSS_DISK"), name ? name + 1 : file);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || pwrite(fd, (const void *)at, size, (off_t)offset) != (ssize_t)size)
        abort();
    close(fd);
}

int msync(void *start, size_t size, int flags)
{
    int (*real)(void *, size_t, int) = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    uintptr_t from = (uintptr_t)start, to = from + size, low, high;
    uint64_t offset;
    char line[4096], file[4096];
    int answer = real(start, size, flags);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64 " %*s %*s %4095[^\n]", &low, &high, &offset, file) == 4
            && low < to && from < high && file[0] == '/') {
            uintptr_t first = from > low ? from : low, end = to < high ? to : high;
            keep(file, first, end - first, offset + (first - low));
        }
    if (maps)
        fclose(maps);
    return answer;
}

int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    struct stat facts;
    char path[4096], folder[64];
    if (fstat(fd, &facts) == 0 && S_ISDIR(facts.st_mode)) {
        snprintf(path, sizeof path, "%s/names", getenv("POWER_LOSS_DISK"));
        snprintf(folder, sizeof folder, "/proc/self/fd/%d", fd);
        FILE *names = fopen(path, "a");
        DIR *entries = opendir(folder);
        for (struct dirent *entry; names && entries && (entry = readdir(entries));)
            fprintf(names, "%s\n", entry->d_name);
        if (names)
            fclose(names);
        if (entries)
            closedir(entries);
    }
    return real(fd);
}
