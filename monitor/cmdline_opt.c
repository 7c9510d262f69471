/* The options with rules of their own, in the order of options.def. */
#include "arch/x86_arch.h"
#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "base/props.h"
#include "monitor/cmdline_int.h"
#include "monitor/cpumodel.h"
#include <stdlib.h>
#include <string.h>

static bool asks_for_help(const char *arg) { return !strcmp(arg, "help") || !strcmp(arg, "?"); }

static int info(struct parse *p, enum cmdline_action action)
{
    p->c->action = action;
    return 0;
}

int opt_help(struct parse *p, const char *arg) { return info(p, CMDLINE_HELP); }
int opt_version(struct parse *p, const char *arg) { return info(p, CMDLINE_VERSION); }

/* -- engine -- */
static const struct {
    const char *name;
    enum cmdline_status status;
    enum engine engine;
} engines[] = {
#define ENGINE(name, status, engine, help) {name, CMDLINE_##status, engine},
#include "monitor/options.def"
};

enum engine_prop_kind { PROP_BOOL, PROP_TRI, PROP_USER, PROP_U32, PROP_U64, PROP_SIZE };
static const struct engine_prop {
    const char *name;
    enum engine_prop_kind kind;
    size_t field;
    const char *now;
} engine_props[] = {
#define ENGINE_PROP(name, kind, field, now, help) {name, PROP_##kind, offsetof(struct cmdline_engine, field), now},
#include "monitor/options.def"
};

/* Takes the engine of that name if none was taken before. -RD_E_NOENT: no such name. */
static int take_engine(struct parse *p, const char *name, bool *taken)
{
    for (unsigned i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (!strcmp(engines[i].name, name)) {
            *taken = !p->c->engine.asked;
            if (!*taken)
                return 0;
            p->c->engine.asked = engines[i].name;
            p->c->engine.engine = engines[i].engine;
            if (engines[i].status == CMDLINE_OK)
                return 0;
            return parse_note(p, engines[i].status,
                              engines[i].status == CMDLINE_STRICT ? "not on this host; answered by binary translation"
                                                                  : "this engine is not supported in this version");
        }
    return -RD_E_NOENT;
}

static int set_engine_prop(struct parse *p, struct cmdline_engine *e, const struct engine_prop *d, const char *val)
{
    static const char *const users[] = {"auto", "direct", "translated"};
    void *field = (char *)e + d->field;
    bool on = true;
    int err = -RD_E_INVAL;
    switch (d->kind) {
    case PROP_BOOL: err = parse_bool(val, field); break;
    case PROP_TRI:
        err = parse_bool(val, &on);
        *(int *)field = on;
        break;
    case PROP_USER:
        for (unsigned i = 0; i < 3; i++)
            if (!strcmp(users[i], val)) {
                *(enum user_mode *)field = (enum user_mode)i;
                err = 0;
            }
        break;
    case PROP_U32: err = parse_u64(val, field) || *(uint64_t *)field > UINT32_MAX; break;
    case PROP_U64: err = parse_u64(val, field); break;
    case PROP_SIZE: err = parse_size(val, 1 << 20, field) || *(uint64_t *)field == 0; break;
    }
    if (err)
        return parse_fail(p, "'%s' is not a value of '%s'", val, d->name);
    return !d->now || parse_is_word(val, d->now)
               ? 0
               : parse_note(p, CMDLINE_REFUSED, "this value is not supported in this version");
}

int opt_accel(struct parse *p, const char *arg)
{
    struct props props;
    bool taken;
    if (asks_for_help(arg))
        return info(p, CMDLINE_ACCEL_HELP);
    int status = parse_props(p, arg, "accel", &props);
    if (status)
        return status;
    const char *name = props_get(&props, "accel");
    status = name ? take_engine(p, name, &taken) : -RD_E_NOENT;
    if (status)
        return status > 0 ? status
                          : parse_fail(p, "there is no engine '%s' ('-accel help' lists them)", name ? name : "");
    /* Of an engine that is only second choice, the properties are looked at and dropped. */
    struct cmdline_engine dropped = {0}, *e = taken ? &p->c->engine : &dropped;
    for (unsigned i = 0; i < props.n && !status; i++) {
        const struct engine_prop *d = NULL;
        for (unsigned k = 0; k < sizeof engine_props / sizeof engine_props[0]; k++)
            if (!strcmp(engine_props[k].name, props.v[i].key))
                d = &engine_props[k];
        if (d)
            status = set_engine_prop(p, e, d, props.v[i].val ? props.v[i].val : "on");
        else if (!parse_is_word(props.v[i].key, "accel thread split-wx kernel-irqchip kvm-shadow-mem dirty-ring-size "
                                                "igd-passthru notify-vmexit notify-window one-insn-per-tb"))
            status = parse_fail(p, "there is no property '%s'", props.v[i].key);
    }
    return status;
}

int opt_enable_kvm(struct parse *p, const char *arg)
{
    bool taken;
    return take_engine(p, "kvm", &taken);
}

/* accel=A:B:C of -machine: the first that is there. */
static int take_first_engine(struct parse *p, const char *list)
{
    char name[32];
    bool taken, any = false;
    for (const char *s = list; *s;) {
        size_t n = strcspn(s, ":");
        snprintf(name, sizeof name, "%.*s", (int)n, s);
        int status = take_engine(p, name, &taken);
        if (status > 0)
            return status;
        any |= status == 0;
        s += n + (s[n] == ':');
    }
    return any ? 0 : parse_fail(p, "there is no engine '%s' ('-accel help' lists them)", list);
}

int opt_singlestep(struct parse *p, const char *arg)
{
    p->c->engine.max_insns = 1;
    return 0;
}

/* -- machine, CPU, memory -- */
struct named {
    const char *name;
    enum cmdline_status status;
    const char *met; /* values that hold anyway, NULL for all */
};
static const struct named machines[] = {
#define MACHINE(name, status, help) {name, CMDLINE_##status, NULL},
#include "monitor/options.def"
    {0}};
static const struct named machine_props[] = {
#define MACHINE_PROP(name, met) {name, CMDLINE_OK, met},
#include "monitor/options.def"
    {0}};
static const struct named cpu_models[] = {
#define CPU_MODEL(name, status, help) {name, CMDLINE_##status, NULL},
#include "monitor/options.def"
    {0}};
static const struct named cpu_props[] = {
#define CPU_PROP(name, met) {name, CMDLINE_OK, met},
#include "monitor/options.def"
    {0}};

static const struct named *find_named(const struct named *table, const char *name, size_t n)
{
    for (; table->name; table++)
        if (strlen(table->name) == n && !memcmp(table->name, name, n))
            return table;
    return NULL;
}

static int set_machine(struct parse *p, const char *name)
{
    /* pc-i440fx-7.2, pc-q35-7.2: a machine as it was in one version of QEMU. */
    const char *family = !strncmp(name, "pc-i440fx-", 10) ? "pc" : !strncmp(name, "pc-q35-", 7) ? "q35" : name;
    const struct named *m = find_named(machines, family, strlen(family));
    if (!m)
        return parse_fail(p, "there is no machine '%s' ('-machine help' lists them)", name);
    p->c->machine = m->name;
    return m->status == CMDLINE_OK ? 0 : parse_note(p, m->status, "the guest is given the pc machine");
}

static int set_kernel_entry(struct parse *p, const char *val)
{
    uint64_t bits = 0;
    if (!parse_is_word(val, "auto 16 32 64") || (strcmp(val, "auto") && parse_u64(val, &bits)))
        return parse_fail(p, "kernel-entry is auto, 16, 32 or 64, not '%s'", val);
    p->c->kernel_entry = (unsigned)bits;
    return 0;
}

int opt_machine(struct parse *p, const char *arg)
{
    if (asks_for_help(arg))
        return info(p, CMDLINE_MACHINE_HELP);
    struct cmdline_item *item = parse_item(p, &p->c->machine_opts);
    if (!item)
        return parse_fail(p, "out of memory");
    int status = parse_props(p, arg, "type", &item->props);
    for (unsigned i = 0; i < item->props.n && !status; i++) {
        const char *key = item->props.v[i].key, *val = item->props.v[i].val ? item->props.v[i].val : "on";
        const struct named *known = find_named(machine_props, key, strlen(key));
        if (!strcmp(key, "type"))
            status = set_machine(p, val);
        else if (!strcmp(key, "accel"))
            status = take_first_engine(p, val);
        else if (!strcmp(key, "kernel-entry"))
            status = set_kernel_entry(p, val);
        else if (!known)
            status = parse_fail(p, "there is no machine property '%s'", key);
        else if (known->met && !parse_is_word(val, known->met))
            status = parse_note(p, CMDLINE_WARN, "a machine property has no effect in this version");
    }
    return status;
}

/* "Haswell-noTSX-v2" -> the length of "Haswell". */
static size_t model_family(const char *name)
{
    static const char *const suffixes[] = {"-IBRS", "-IBPB", "-noTSX"};
    size_t n = strlen(name);
    if (n > 3 && name[n - 3] == '-' && name[n - 2] == 'v' && name[n - 1] >= '0' && name[n - 1] <= '9')
        n -= 3;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < 3; i++) {
            size_t k = strlen(suffixes[i]);
            if (n > k && !memcmp(name + n - k, suffixes[i], k))
                n -= k;
        }
    return n;
}

/* Does the CPU model know the feature, and can it be as asked on this host? */
static bool can_set(const struct prop *f)
{
    char spec[128], bad[64];
    struct cpumodel *m;
    if (snprintf(spec, sizeof spec, "max,%s=%s", f->key, f->val) >= (int)sizeof spec || strchr(spec + 4, ','))
        return false;
    if (cpumodel_create(&m, spec, cpumodel_host_cpuid, bad, sizeof bad))
        return false;
    cpumodel_destroy(m);
    return true;
}

/* One feature: +x, -x, x, x=value. Leaves it in the form x=value, and appends it to the model's specification. */
static int set_cpu_prop(struct parse *p, struct prop *f, char *spec)
{
    if (!f->val) {
        f->val = *f->key == '-' ? "off" : "on";
        f->key += *f->key == '-' || *f->key == '+';
    }
    if (!*f->key)
        return parse_fail(p, "a feature has no name");
    const struct named *known = find_named(cpu_props, f->key, strlen(f->key));
    if (known && (!known->met || parse_is_word(f->val, known->met)))
        return 0;
    if (known || !can_set(f))
        return parse_note(p, CMDLINE_WARN, "a feature cannot be as asked on this host or in this version");
    sprintf(spec + strlen(spec), ",%s=%s", f->key, f->val);
    return 0;
}

int opt_cpu(struct parse *p, const char *arg)
{
    struct props props;
    if (asks_for_help(arg))
        return info(p, CMDLINE_CPU_HELP);
    int status = parse_props(p, arg, "model", &props);
    if (status)
        return status;
    const char *name = props_get(&props, "model");
    const struct named *model = name ? find_named(cpu_models, name, model_family(name)) : NULL;
    if (!model)
        return parse_fail(p, "there is no CPU model '%s' ('-cpu help' lists them)", name ? name : arg);
    /* A feature grows by "=off" at most. */
    char *spec = parse_alloc(p, strlen(arg) + 8 + 5 * props.n);
    if (!spec)
        return parse_fail(p, "out of memory");
    p->c->cpu_model = name;
    p->c->cpu_props = props;
    p->c->cpu_spec = strcpy(spec, model->status == CMDLINE_OK ? model->name : "host");
    if (model->status != CMDLINE_OK)
        status = parse_note(p, model->status, "the guest is given the host's CPU");
    for (unsigned i = 0; i < props.n && !status; i++)
        if (strcmp(props.v[i].key, "model"))
            status = set_cpu_prop(p, &props.v[i], spec);
    return status;
}

int opt_smp(struct parse *p, const char *arg)
{
    static const char *const keys[] = {"cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads"};
    uint64_t n[7] = {0};
    struct props props;
    int status = parse_props(p, arg, "cpus", &props);
    if (status)
        return status;
    const char *bad = props_unknown(&props, "cpus maxcpus sockets dies clusters cores threads");
    if (bad)
        return parse_fail(p, "parameter '%s' is unexpected", bad);
    uint64_t product = 1;
    for (unsigned i = 0; i < 7; i++) {
        if (props_u64(&props, keys[i], 65535, &n[i]) || (!n[i] && props_get(&props, keys[i])))
            return parse_fail(p, "%s= is not a number of CPUs", keys[i]);
        if (i >= 2 && n[i] && __builtin_mul_overflow(product, n[i], &product))
            return parse_fail(p, "too many CPUs");
    }
    uint64_t cpus = n[0] ? n[0] : n[1] ? n[1] : product, max = n[1] ? n[1] : cpus > product ? cpus : product;
    if (max < cpus)
        return parse_fail(p, "maxcpus is less than cpus");
    if (max % product)
        return parse_fail(p, "sockets, cores and threads do not make up %llu CPUs", (unsigned long long)max);
    if (max > 65535)
        return parse_fail(p, "too many CPUs");
    p->c->cpus = (unsigned)cpus;
    return max == 1 ? 0 : parse_note(p, CMDLINE_REFUSED, "only one CPU is supported in this version");
}

int opt_m(struct parse *p, const char *arg)
{
    struct props props;
    int status = parse_props(p, arg, "size", &props);
    if (status)
        return status;
    const char *size = props_get(&props, "size"), *bad = props_unknown(&props, "size slots maxmem");
    uint64_t bytes;
    if (bad)
        return parse_fail(p, "parameter '%s' is unexpected", bad);
    if (!size || parse_size(size, 1 << 20, &bytes))
        return parse_fail(p, "'%s' is not a size", size ? size : arg);
    if (bytes < 1 << 20 || bytes > 1ull << 39)
        return parse_fail(p, "guest memory is from 1M to 512G");
    p->c->mem_bytes = bits_align_up(bytes, PAGE_SIZE);
    return props.n == 1 ? 0 : parse_note(p, CMDLINE_REFUSED, "memory hot-plug is not supported in this version");
}

int opt_name(struct parse *p, const char *arg)
{
    struct props props;
    int status = parse_props(p, arg, "guest", &props);
    const char *bad = status ? NULL : props_unknown(&props, "guest process debug-threads");
    if (bad)
        return parse_fail(p, "parameter '%s' is unexpected", bad);
    if (!status)
        p->c->name = props_get(&props, "guest");
    return status;
}

int opt_rtc(struct parse *p, const char *arg)
{
    struct cmdline_item *item = parse_item(p, &p->c->rtc);
    if (!item)
        return parse_fail(p, "out of memory");
    int status = parse_props(p, arg, NULL, &item->props);
    if (status)
        return status;
    const char *bad = props_unknown(&item->props, "base clock driftfix");
    const char *base = props_get(&item->props, "base"), *clock = props_get(&item->props, "clock");
    const char *drift = props_get(&item->props, "driftfix");
    if (bad)
        return parse_fail(p, "parameter '%s' is unexpected", bad);
    bool same = (!base || !strcmp(base, "utc")) && (!clock || !strcmp(clock, "host"));
    return same && (!drift || !strcmp(drift, "none"))
               ? 0
               : parse_note(p, CMDLINE_WARN, "the guest's clock is the host's, in UTC, in this version");
}

/* -- devices -- */
static const struct device_desc {
    const char *name;
    enum cmdline_status status;
    const char *props;
} devices[] = {
#define DEVICE(name, status, bus, props, help) {name, CMDLINE_##status, props},
#include "monitor/options.def"
};

static const struct device_desc *find_device(const char *name)
{
    for (unsigned i = 0; i < sizeof devices / sizeof devices[0]; i++)
        if (!strcmp(devices[i].name, name))
            return &devices[i];
    return NULL;
}

/* Keys and values of a device that is there. */
static int check_device_props(struct parse *p, const struct device_desc *d, const struct props *props)
{
    char keys[256];
    snprintf(keys, sizeof keys, "driver id bus %s", d->props ? d->props : "");
    for (unsigned i = 0; i < props->n; i++) {
        const char *key = props->v[i].key;
        uint64_t x;
        if (!parse_is_word(key, keys))
            return parse_fail(p, "%s has no property '%s'", d->name, key);
        if (parse_is_word(key, "iobase iosize readback") && (props_u64(props, key, 65535, &x) || !props->v[i].val))
            return parse_fail(p, "property '%s' is a number from 0 to 65535", key);
    }
    return 0;
}

int opt_device(struct parse *p, const char *arg)
{
    if (asks_for_help(arg))
        return info(p, CMDLINE_DEVICE_HELP);
    if (*arg == '{')
        return parse_fail(p, "devices are given as NAME,PROP=VALUE..., not as JSON");
    struct cmdline_item *item = parse_item(p, &p->c->devices);
    if (!item)
        return parse_fail(p, "out of memory");
    int status = parse_props(p, arg, "driver", &item->props);
    if (status)
        return status;
    const char *name = props_get(&item->props, "driver");
    const struct device_desc *d = name ? find_device(name) : NULL;
    if (!d)
        return name ? parse_fail(p, "'%s' is not a valid device model name", name)
                    : parse_fail(p, "the device's name is missing");
    if (props_get(&item->props, "help") || props_get(&item->props, "?")) {
        p->c->topic = d->name;
        return info(p, CMDLINE_DEVICE_HELP);
    }
    if (d->status == CMDLINE_OK)
        return check_device_props(p, d, &item->props);
    return parse_note(p, d->status, "this device is not supported in this version");
}

/* -- things there are none of -- */
static int only_none(struct parse *p, const char *why)
{
    return !strcmp(p->arg, "none") ? 0 : parse_note(p, CMDLINE_REFUSED, why);
}

int opt_nic(struct parse *p, const char *arg)
{
    return only_none(p, "network adapters are not supported in this version");
}
int opt_vga(struct parse *p, const char *arg)
{
    return only_none(p, "display adapters are not supported in this version");
}

int opt_parallel(struct parse *p, const char *arg)
{
    return !strcmp(arg, "none") || !strcmp(arg, "null") ? 0
                                                        : parse_note(p, CMDLINE_WARN, "has no effect in this version");
}

int opt_display(struct parse *p, const char *arg)
{
    p->c->display = arg;
    return only_none(p, "displays are not supported in this version");
}

/* -- running, looking inside -- */
int opt_echr(struct parse *p, const char *arg)
{
    uint64_t code;
    if (parse_u64(arg, &code) || code > 255)
        return parse_fail(p, "not a character code");
    p->c->echr = (unsigned)code;
    return 0;
}

int opt_action(struct parse *p, const char *arg)
{
    static const char *const values[][2] = {{"reboot", "reset shutdown"},
                                            {"shutdown", "poweroff pause"},
                                            {"panic", "pause shutdown exit-failure none"},
                                            {"watchdog", "reset shutdown poweroff inject-nmi pause debug none"}};
    struct props props;
    int status = parse_props(p, arg, NULL, &props);
    if (status)
        return status;
    const char *bad = props_unknown(&props, "reboot shutdown panic watchdog");
    if (bad)
        return parse_fail(p, "there is no event '%s'", bad);
    const char *given[4];
    for (unsigned i = 0; i < 4; i++) {
        given[i] = props_get(&props, values[i][0]);
        if (given[i] && !parse_is_word(given[i], values[i][1]))
            return parse_fail(p, "'%s' is not an action for '%s'", given[i], values[i][0]);
    }
    if (given[0])
        p->c->no_reboot = !strcmp(given[0], "shutdown");
    if (given[1])
        p->c->no_shutdown = !strcmp(given[1], "pause");
    if (given[2])
        p->c->action_panic = given[2];
    if (given[3])
        p->c->action_watchdog = given[3];
    return 0;
}

int opt_d(struct parse *p, const char *arg)
{
    const char *bad;
    uint32_t mask;
    if (asks_for_help(arg))
        return info(p, CMDLINE_LOG_HELP);
    if (log_parse_mask(arg, &mask, &bad))
        return parse_fail(p, "there is nothing to log called '%s' ('-d help' lists what there is)", bad);
    p->c->log_mask |= mask;
    return 0;
}

/* Without a number, about as often as a boot can bear. */
#define CHECK_SHADOW_DEFAULT 64
#define CHECK_TC_DEFAULT 20000

int opt_check(struct parse *p, const char *arg)
{
    struct props props;
    struct cmdline_engine *e = &p->c->engine;
    if (asks_for_help(arg))
        return info(p, CMDLINE_CHECK_HELP);
    int status = parse_props(p, arg, NULL, &props);
    if (status)
        return status;
    const char *bad = props_unknown(&props, "shadow tc sabotage");
    if (bad || !strncmp(props.v[0].key, "no", 2))
        return parse_fail(p, "there is nothing to check called '%s' ('-check help')", bad ? bad : props.v[0].key);
    const struct {
        const char *key;
        uint64_t usual, *val;
    } item[] = {{"shadow", CHECK_SHADOW_DEFAULT, &e->check_shadow},
                {"tc", CHECK_TC_DEFAULT, &e->check_tc},
                {"sabotage", 1, &e->check_sabotage}};
    for (unsigned i = 0; i < 3; i++) {
        const char *val = props_get(&props, item[i].key);
        if (val && !*val)
            *item[i].val = item[i].usual;
        else if (val && (parse_u64(val, item[i].val) || !*item[i].val || *item[i].val > 1000000000))
            return parse_fail(p, "'%s' is not a value of '%s'", val, item[i].key);
    }
    return e->check_sabotage && !e->check_shadow ? parse_fail(p, "'sabotage' needs 'shadow'") : 0;
}

/* QEMU's finer switches: what they would deny is denied with on. */
int opt_sandbox(struct parse *p, const char *arg)
{
    struct props props;
    int status = parse_props(p, arg, "enable", &props);
    if (status)
        return status;
    const char *bad = props_unknown(&props, "enable obsolete elevateprivileges spawn resourcecontrol");
    if (bad)
        return parse_fail(p, "there is no property '%s'", bad);
    const char *on = props_get(&props, "enable");
    return !on || parse_bool(on, &p->c->confine) ? parse_fail(p, "'%s' is neither on nor off", on ? on : "") : 0;
}
