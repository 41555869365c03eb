// A CUDA driver whose GPU is the host's memory, with the functions that the extension calls: enough to show, where there is no GPU, what it asks the
// driver for. No worker can open this memory.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int allocations, events, pushed;

int host_cuda_allocations(void) { return allocations; }
int host_cuda_events(void) { return events; }
int host_cuda_pushed(void) { return pushed; }

int cuInit(unsigned flags) { return (int)flags; }
int cuGetErrorName(int code, const char** name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_INVALID_DEVICE";
    return 0;
}
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = &allocations, device; }
int cuCtxPushCurrent_v2(void* context) { return pushed += context != NULL, 0; }
int cuCtxPopCurrent_v2(void** context) { return *context = NULL, --pushed, 0; }

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (bytes > (size_t)1 << 30) return 2;
    *address = (uint64_t)(uintptr_t)malloc(bytes);
    return ++allocations, 0;
}
int cuMemFree_v2(uint64_t address) { return free((void*)(uintptr_t)address), --allocations, 0; }
int cuIpcGetMemHandle(char* handle, uint64_t address) { return memset(handle, (int)(address & 1), 64), 0; }
int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    return memcpy((void*)(uintptr_t)to, (const void*)(uintptr_t)from, bytes), stream == (void*)13 ? 13 : 0;
}

int cuStreamQuery(void* stream) {
    static int polls;
    if (stream == (void*)7) return 600;  // never done
    return ++polls % 3 == 0 ? 0 : 600;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned flags) { return (void)stream, event == NULL || flags != 0; }
int cuEventCreate(void** event, unsigned flags) { return *event = malloc(1), ++events, flags != 2; }
int cuEventRecord(void* event, void* stream) { return (void)stream, event == NULL; }
int cuEventDestroy_v2(void* event) { return free(event), --events, 0; }
