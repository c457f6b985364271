// A stand-in for NVRTC: takes every program and gives no code. STANDIN_NVRTC is its version (1300).

#include <stdlib.h>
#include <string.h>

static int version(void) {
    const char *text = getenv("STANDIN_NVRTC");
    return text && *text ? atoi(text) : 1300;
}

int nvrtcVersion(int *major, int *minor) { *major = version() / 100; *minor = version() % 100 / 10; return 0; }
const char *nvrtcGetErrorString(int code) { return code ? "NVRTC_ERROR" : "NVRTC_SUCCESS"; }
int nvrtcCreateProgram(void **p, const char *source, const char *name, int n, const char **bodies, const char **names) {
    (void)name; (void)n; (void)bodies; (void)names;
    *p = strdup(source);
    return 0;
}
int nvrtcDestroyProgram(void **p) { free(*p); *p = 0; return 0; }
int nvrtcCompileProgram(void *p, int n, const char **options) { (void)p; (void)n; (void)options; return 0; }
int nvrtcGetProgramLogSize(void *p, size_t *n) { (void)p; *n = 1; return 0; }
int nvrtcGetProgramLog(void *p, char *log) { (void)p; *log = 0; return 0; }
int nvrtcGetCUBINSize(void *p, size_t *n) { (void)p; *n = 4; return 0; }
int nvrtcGetCUBIN(void *p, char *code) { (void)p; memcpy(code, "code", 4); return 0; }
int nvrtcGetPTXSize(void *p, size_t *n) { (void)p; *n = 4; return 0; }
int nvrtcGetPTX(void *p, char *code) { (void)p; memcpy(code, "ptx", 4); return 0; }
static const int known[] = {75, 80, 86, 89, 90, 100, 120};
int nvrtcGetNumSupportedArchs(int *n) { *n = sizeof known / sizeof *known; return 0; }
int nvrtcGetSupportedArchs(int *list) { memcpy(list, known, sizeof known); return 0; }
