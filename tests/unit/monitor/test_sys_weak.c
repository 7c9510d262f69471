/* Hooks that system instructions need and no test here looks at; weak, so that the real ones win once they are linked. */
#include "monitor/sysinsn.h"

__attribute__((weak)) void vcpu_mmu_invlpg(struct vcpu *v, uint64_t lin) {}
__attribute__((weak)) int vcpu_pio(struct vcpu *v, uint16_t port, unsigned size, bool is_write, uint32_t *val)
{
    return SYS_EXIT;
}
