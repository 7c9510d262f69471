/* tests/guest/paging_4level64.c - 4-level paging: permissions, NX, sizes, reserved bits, canonical addresses. */
#include "rt.h"

extern volatile uint64_t rt_pml4[512], rt_pdpt[512];
/* Slot 256 of the PML4, 0xffff800000000000, belongs to the tests. */
#define PDPT ((volatile uint64_t *)0x400000)
#define PD ((volatile uint64_t *)0x401000)
#define PT ((volatile uint64_t *)0x402000)
#define PAGE(n) (0x500000ul + (n)*0x1000ul)
#define LIN(n) (0xffff800000000000ul + (n)*0x1000ul)
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX (1ull << 63)

#define TRY_READ(name, lin) TRY_ASM(name, "cmpl $0, (%%rcx)", "c"(lin))
#define TRY_WRITE(name, lin) TRY_ASM(name, "movl $7, (%%rcx)", "c"(lin))
#define TRY_CALL(name, lin) TRY_ASM(name, "call *%%rcx", "c"(lin))

static word user_lin;
static void user_read(void) { __asm__ volatile(AT "cmpl $0, (%%rcx)" : : "c"(user_lin)); }
static void user_write(void) { __asm__ volatile(AT "movl $7, (%%rcx)" : : "c"(user_lin) : "memory"); }
static void user_exec(void) { __asm__ volatile(AT "jmp *%%rcx" : : "c"(user_lin)); }

static void flush(void) { write_cr3(read_cr3()); }

static void set(uint64_t pml4e, uint64_t pdpte, uint64_t pde, uint64_t pte)
{
    rt_pml4[256] = pml4e;
    PDPT[0] = pdpte;
    PD[0] = pde;
    PT[0] = pte;
    flush();
    *(volatile uint16_t *)PAGE(0) = 0x80cd;
}

static void all(const char *name)
{
    rt_printf("-- %s\n", name);
    user_lin = LIN(0);
    TRY_READ("read", LIN(0));
    TRY_WRITE("write", LIN(0) + 8);
    *(volatile uint16_t *)PAGE(0) = 0x80cd;
    TRY_CALL("fetch", LIN(0));
    TRY("user read", rt_user(user_read));
    TRY("user write", rt_user(user_write));
    *(volatile uint16_t *)PAGE(0) = 0x80cd;
    TRY("user fetch", rt_user(user_exec));
}

#define T3 ((uint64_t)PDPT | P | W | U)
#define T2 ((uint64_t)PD | P | W | U)
#define T1 ((uint64_t)PT | P | W | U)
#define T0 (PAGE(0) | P | W | U)

static void permissions(void)
{
    set(T3, T2, T1, T0);
    all("plain");
    rt_printf("  %llx %llx %llx %llx\n", (unsigned long long)rt_pml4[256] & 0xfff, (unsigned long long)PDPT[0] & 0xfff,
              (unsigned long long)PD[0] & 0xfff, (unsigned long long)PT[0] & 0xfff);
    set(T3 | NX, T2, T1, T0);
    all("NX at the top");
    set(T3, T2 & ~U, T1, T0);
    all("supervisor PDPTE");
    set(T3, T2, T1 & ~W, T0);
    all("read-only directory entry");
    set(T3, T2, T1, PAGE(0) | P | NX);
    all("supervisor, read-only, NX");
    write_cr0(read_cr0() | 0x10000);
    all("the same with WP");
    set(T3, T2, T1 & ~W, T0);
    all("read-only directory entry with WP");
    write_cr0(read_cr0() & ~0x10000ul);
    set(T3, T2, T1, PAGE(0) | W | U);
    all("absent page");
    set(0, T2, T1, T0);
    all("absent at the top");
}

static void reserved(void)
{
    static const struct {
        const char *name;
        uint64_t l4, l3, l2, l1;
    } rows[] = {
        {"PS in the PML4E", PS, 0, 0, 0},
        {"address bit 51 in the PML4E", 1ull << 51, 0, 0, 0},
        {"address bit 51 in the PDPTE", 0, 1ull << 51, 0, 0},
        {"address bit 51 in the PDE", 0, 0, 1ull << 51, 0},
        {"address bit 51 in the PTE", 0, 0, 0, 1ull << 51},
        {"bits 62:52 are free", 0x7ffull << 52, 0x7ffull << 52, 0x7ffull << 52, 0x7ffull << 52},
        {"bits 11:9 are free", 0xe00, 0xe00, 0xe00, 0xe00},
        {"PAT in the PTE", 0, 0, 0, 0x80},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set(T3 | rows[i].l4, T2 | rows[i].l3, T1 | rows[i].l2, T0 | rows[i].l1);
        rt_printf("%s: ", rows[i].name);
        TRY_READ("read", LIN(0));
    }
    set(T3, T2, 0x600000 | P | W | U | PS, 0);
    TRY_WRITE("2 MiB page", LIN(3) + 4);
    rt_printf("  pde %llx, memory %x\n", (unsigned long long)PD[0], *(volatile uint32_t *)0x603004);
    PD[0] |= 1 << 13;
    flush();
    TRY_WRITE("2 MiB page with bit 13", LIN(3));
    set(T3, 0 | P | W | U | PS, 0, 0);
    TRY_WRITE("1 GiB page", LIN(0x703) + 4);
    rt_printf("  pdpte %llx, memory %x\n", (unsigned long long)PDPT[0], *(volatile uint32_t *)0x703004);
    PDPT[0] |= 1 << 29;
    flush();
    TRY_WRITE("1 GiB page with bit 29", LIN(3));
    set(T3, T2, T1, T0 | NX);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
    flush();
    TRY_READ("NX without NXE", LIN(0));
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
}

static void canonical(void)
{
    TRY_READ("last byte of the lower half and beyond", 0x7ffffffffffful - 2);
    TRY_READ("non-canonical", 0x800000000000ul);
    TRY_ASM("non-canonical through rsp", "cmpl $0, (%%rsp,%%rcx)", "c"(0x800000000000ul));
    TRY_ASM("non-canonical through rbp", "movq %%rcx, %%rbp\n cmpl $0, (%%rbp)", "c"(0x800000000000ul));
    TRY_WRITE("just below the upper half", 0xffff7ffffffffffeul);
    TRY_READ("start of the upper half, absent", 0xffff900000000000ul);
    TRY_ASM("jump to non-canonical", "jmp *%%rcx", "c"(0x800000000000ul));
    TRY_ASM("call to non-canonical", "call *%%rcx", "c"(0x800000000000ul));
    TRY_ASM("ret to non-canonical", "pushq %%rcx\n ret", "c"(0x800000000000ul));
    TRY_ASM("jump to absent", "jmp *%%rcx", "c"(0xffff900000000000ul));
    TRY_ASM("invlpg of non-canonical", "invlpg (%%rcx)", "c"(0x800000000000ul));
    TRY_ASM("string read runs off the lower half", "lodsq", "S"(0x800000000000ul));
}

static uint8_t byte_at(word lin) { return *(volatile uint8_t *)(PAGE(lin < LIN(1) ? 3 : 0) + (lin & 0xfff)); }

/* A stack on two pages that are not neighbours in memory: accesses on either side of the border and over it. */
static void stack_on_two_pages(void)
{
    unsigned wrong = 0;
    set(T3, T2, T1, PAGE(3) | P | W | U);
    PT[1] = T0;
    flush();
    for (unsigned i = 0; i < 320; i++) {
        word sp = LIN(1) - 160 + i * 4 % 320; /* each border again with both pages known */
        word value = 0x0102030405060708ul * (sp & 0xff), read, popped;
        __asm__ volatile("xchgq %%rsp, %2\n pushq %3\n popq %1\n movq %3, -12(%%rsp)\n movq -12(%%rsp), %0\n"
                         "pushq $1\n pushq $2\n pushq %1\n pushq $4\n pushq $5\n popq %1\n popq %1\n popq %1\n"
                         "addq $16, %%rsp\n movq %3, -12(%%rsp)\n xchgq %%rsp, %2"
                         : "=&r"(read), "=&r"(popped), "+r"(sp)
                         : "r"(value)
                         : "memory");
        wrong += read != value || popped != value;
        for (unsigned k = 0; k < 8; k++)
            wrong += byte_at(sp - 12 + k) != (uint8_t)(value >> 8 * k);
    }
    rt_printf("stack on two pages: %d wrong\n", wrong);
}

int main(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    permissions();
    stack_on_two_pages();
    reserved();
    canonical();
    return 0;
}
