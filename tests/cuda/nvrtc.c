// A stand-in for NVRTC: takes every program and gives no code.
//
//   STANDIN_NVRTC         its version (1300)
//   STANDIN_COMPILED      file to which each compilation appends a line: the process, the file, the options
//   STANDIN_COMPILE_MS    milliseconds that a compilation takes (0)
//   STANDIN_WORKERS_DIE   1: a process that was started as a worker ends in its second compilation
//   STANDIN_REFUSES       a file that does not compile

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int version(void) {
    const char *text = getenv("STANDIN_NVRTC");
    return text && *text ? atoi(text) : 1300;
}

int nvrtcVersion(int *major, int *minor) { *major = version() / 100; *minor = version() % 100 / 10; return 0; }
const char *nvrtcGetErrorString(int code) { return code ? "NVRTC_ERROR" : "NVRTC_SUCCESS"; }
int nvrtcCreateProgram(void **p, const char *source, const char *name, int n, const char **bodies, const char **names) {
    (void)source; (void)n; (void)bodies; (void)names;
    *p = strdup(name);
    return 0;
}
int nvrtcDestroyProgram(void **p) { free(*p); *p = 0; return 0; }
static int is_worker(void) {
    char line[4096] = {0};
    FILE *f = fopen("/proc/self/cmdline", "r");
    size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;
    if (f) fclose(f);
    for (size_t i = 0; i < n; i += strlen(line + i) + 1)
        if (!strcmp(line + i, "worker")) return 1;
    return 0;
}
int nvrtcCompileProgram(void *p, int n, const char **options) {
    static int count;
    const char *die = getenv("STANDIN_WORKERS_DIE"), *ms = getenv("STANDIN_COMPILE_MS"), *refuses = getenv("STANDIN_REFUSES");
    if (die && *die == '1' && ++count == 2 && is_worker()) _exit(9);
    if (refuses && !strcmp(p, refuses)) return 6;
    if (ms) {
        struct timespec t = {0, atol(ms) * 1000000};
        nanosleep(&t, 0);
    }
    const char *path = getenv("STANDIN_COMPILED");
    FILE *f = path ? fopen(path, "a") : 0;
    if (f) {
        // One write: several processes append.
        char line[8192];
        int at = snprintf(line, sizeof line, "%d %s", getpid(), (char *)p);
        for (int i = 0; i < n && at < (int)sizeof line - 2; i++) at += snprintf(line + at, sizeof line - 2 - at, " %s", options[i]);
        if (at > (int)sizeof line - 2) at = sizeof line - 2;
        line[at++] = '\n';
        fwrite(line, 1, at, f);
        fclose(f);
    }
    return 0;
}
int nvrtcGetProgramLogSize(void *p, size_t *n) { (void)p; *n = 1; return 0; }
int nvrtcGetProgramLog(void *p, char *log) { (void)p; *log = 0; return 0; }
int nvrtcGetCUBINSize(void *p, size_t *n) { (void)p; *n = 4; return 0; }
int nvrtcGetCUBIN(void *p, char *code) { (void)p; memcpy(code, "code", 4); return 0; }
int nvrtcGetPTXSize(void *p, size_t *n) { (void)p; *n = 4; return 0; }
int nvrtcGetPTX(void *p, char *code) { (void)p; memcpy(code, "ptx", 4); return 0; }
static const int known[] = {75, 80, 86, 89, 90, 100, 120};
int nvrtcGetNumSupportedArchs(int *n) { *n = sizeof known / sizeof *known; return 0; }
int nvrtcGetSupportedArchs(int *list) { memcpy(list, known, sizeof known); return 0; }
