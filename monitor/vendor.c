/* monitor/vendor.c - whose CPU the guest believes it runs on. nofpu. */
#include "monitor/sys_int.h"

bool sys_vendor_intel(const struct vcpu *v)
{
    uint32_t out[4];
    sys_cpuid(v, 0, 0, out);
    return out[1] == 0x756e6547u; /* "Genu" */
}
