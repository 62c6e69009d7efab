/* Mappings of files that somebody may cut short meanwhile. Touching a page that the file no longer has raises SIGBUS, and
 * so does a page that finds no room on a file system that allocates when it writes. The handler puts memory of our own in
 * the place of what is gone, from the page that faulted to the end of the mapping, marks the mapping as broken, and the
 * program goes on where it was. Any other SIGBUS goes to whoever had it before.
 *
 * The table is read by the handler while any thread may change it: a slot counts only while `start` is set, and `start`
 * is set last and cleared first. */
#ifndef CPRO_GUARD_H
#define CPRO_GUARD_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPRO_GUARDS 16384

static struct {
    uintptr_t start; /* 0: free; 1: being set */
    uintptr_t end;
    int broken;
} cpro_guards[CPRO_GUARDS];

static struct sigaction cpro_guard_before;
static uintptr_t cpro_guard_page;

static void cpro_guard_pass_on(int number, siginfo_t *info, void *context)
{
    if (cpro_guard_before.sa_flags & SA_SIGINFO)
        cpro_guard_before.sa_sigaction(number, info, context);
    else if (cpro_guard_before.sa_handler == SIG_DFL || cpro_guard_before.sa_handler == SIG_IGN) {
        signal(number, SIG_DFL);
        raise(number); /* comes when this handler returns, and that is the end */
    } else
        cpro_guard_before.sa_handler(number);
}

static void cpro_guard_handle(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    int saved = errno;
    for (int place = 0; info->si_code > 0 && place < CPRO_GUARDS; place++) {
        uintptr_t start = __atomic_load_n(&cpro_guards[place].start, __ATOMIC_ACQUIRE);
        uintptr_t end = cpro_guards[place].end;
        uintptr_t page = at & ~(cpro_guard_page - 1);
        if (start <= 1 || at < start || at >= end)
            continue;
        __atomic_store_n(&cpro_guards[place].broken, 1, __ATOMIC_RELEASE);
        if (mmap((void *)page, end - page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            break;
        errno = saved;
        return;
    }
    errno = saved;
    cpro_guard_pass_on(number, info, context);
}

/* Once per process; with the lock of the interpreter held. 0, or errno. */
static int cpro_guard_install(void)
{
    static int installed;
    struct sigaction ours = {0};
    if (installed)
        return 0;
    if (sigaction(SIGBUS, NULL, &cpro_guard_before))
        return errno;
    installed = 1;
    cpro_guard_page = (uintptr_t)sysconf(_SC_PAGESIZE);
    ours.sa_sigaction = cpro_guard_handle;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, NULL) ? errno : 0;
}

/* The slot that from now on watches over [start, start + size); -1: all are taken, and the mapping stands unguarded. */
static int cpro_guard_add(const void *start, size_t size)
{
    for (int place = 0; place < CPRO_GUARDS; place++) {
        uintptr_t free_slot = 0;
        if (!__atomic_compare_exchange_n(&cpro_guards[place].start, &free_slot, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        cpro_guards[place].end = (uintptr_t)start + size;
        cpro_guards[place].broken = 0;
        __atomic_store_n(&cpro_guards[place].start, (uintptr_t)start, __ATOMIC_RELEASE);
        return place;
    }
    return -1;
}

/* Before unmapping. */
static void cpro_guard_remove(int place)
{
    if (place >= 0)
        __atomic_store_n(&cpro_guards[place].start, 0, __ATOMIC_RELEASE);
}

static int cpro_guard_broken(int place)
{
    return place >= 0 && __atomic_load_n(&cpro_guards[place].broken, __ATOMIC_ACQUIRE);
}

/* Give every page a writer's mapping without changing a byte, even while another thread writes there. */
static void cpro_touch_pages(uint8_t *start, size_t size)
{
    for (size_t at = 0; at < size; at += 4096)
        __atomic_fetch_or(start + at, 0, __ATOMIC_RELAXED);
}

/* The same in one call where the kernel has it (Linux 5.14). */
static int cpro_populate_pages(uint8_t *start, size_t size)
{
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
    if (size == 0 || madvise(start, size, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno == EINVAL)
        cpro_touch_pages(start, size);
    return errno;
}

#endif
