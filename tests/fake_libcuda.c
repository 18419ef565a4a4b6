/* A CUDA driver that has one GPU and can do nothing else; compile with -DNAME=... -DMAJOR=... -DMINOR=... */
#include <string.h>

int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, NAME, length); return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : 0; /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_* */
    return 0;
}
