/* OpenVINO's plugin for ONNX Runtime, for tests on CPUs of other makers.
 *
 * The plugin (onnxruntime-ep-openvino 1.4 to 1.8) takes devices of Intel only, although its compiler runs
 * on any x86-64 CPU. This library stands before it and tells it that every device is Intel's. It is
 * compiled by tests/openvino_cpu.py with PLUGIN, the path of the real library.
 *
 * OrtApi is a table of functions that only grows: HardwareDevice_VendorId is number 308 since
 * ONNX Runtime 1.22. There were about 430 in 1.32; what is copied past the end is never looked at.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { VENDOR_ID = 308, COPIED = 512 };

typedef struct {
  const void *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
} ApiBase;

typedef void *(*CreateEpFactories)(const char *, const ApiBase *, const void *, void **, size_t, size_t *);
typedef void *(*ReleaseEpFactory)(void *);

static const ApiBase *real;
static ApiBase ours;
static void *table[COPIED];

static uint32_t intel(const void *device) {
  (void)device;
  return 0x8086;
}

static const void *get_api(uint32_t version) {
  const void *api = real->get_api(version);
  if (api == NULL) return NULL;
  memcpy(table, api, sizeof table);
  table[VENDOR_ID] = (void *)intel;
  return table;
}

static void *symbol(const char *name) {
  static void *plugin;
  if (plugin == NULL) plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
  return plugin == NULL ? NULL : dlsym(plugin, name);
}

void *create(const char *name, const ApiBase *base, const void *logger, void **made, size_t room, size_t *count)
    __asm__("CreateEpFactories");
void *create(const char *name, const ApiBase *base, const void *logger, void **made, size_t room, size_t *count) {
  real = base;
  ours = *base;
  ours.get_api = get_api;
  return ((CreateEpFactories)symbol("CreateEpFactories"))(name, &ours, logger, made, room, count);
}

void *release(void *factory) __asm__("ReleaseEpFactory");
void *release(void *factory) { return ((ReleaseEpFactory)symbol("ReleaseEpFactory"))(factory); }
