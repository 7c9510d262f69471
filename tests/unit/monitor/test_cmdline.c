#include "base/log.h"
#include "monitor/cmdline.h"
#include <criterion/criterion.h>
#include <string.h>

/* Every line is written as in a shell, without quoting: words are split at blanks ("%" stands for a blank inside a word). */
static struct cmdline c;
static char words[4096], errors[2048];

static int run(int (*fn)(struct cmdline *, int, char **, FILE *), const char *line)
{
    char *argv[128];
    int argc = 0;
    cmdline_free(&c);
    snprintf(words, sizeof words, "ringdown %s", line);
    for (char *s = strtok(words, " "); s; s = strtok(NULL, " "))
        argv[argc++] = s;
    for (int i = 0; i < argc; i++)
        for (char *s = argv[i]; *s; s++)
            if (*s == '%')
                *s = ' ';
    memset(errors, 0, sizeof errors);
    FILE *err = fmemopen(errors, sizeof errors, "w");
    int status = fn(&c, argc, argv, err);
    fclose(err);
    return status;
}

/* Parses a whole line that must be accepted without a word. */
static void accept(const char *line)
{
    cr_assert_eq(run(cmdline_parse, line), 0, "%s: %s", line, errors);
    cr_assert_str_empty(errors, "%s: %s", line, errors);
}
/* Parses a line that names things which are not there yet. */
static void scan(const char *line) { cr_assert_eq(run(cmdline_scan, line), 0, "%s: %s", line, errors); }

/* A line that must end with status 2 and one line of text that holds the word. */
static void refuse(const char *line, const char *word)
{
    cr_assert_eq(run(cmdline_parse, line), 2, "%s", line);
    cr_assert(strstr(errors, word), "%s: '%s' is not in: %s", line, word, errors);
    cr_assert_eq(strncmp(errors, "ringdown: ", 10), 0, "%s", errors);
    cr_assert_eq(strchr(errors, '\n'), errors + strlen(errors) - 1, "%s: more than one line: %s", line, errors);
}
/* A line that is accepted with one warning that holds the word, and refused under -strict. */
static void warn(const char *line, const char *word)
{
    char strict[1000];
    cr_assert_eq(run(cmdline_parse, line), 0, "%s: %s", line, errors);
    cr_assert(strstr(errors, "ringdown: warning: ") == errors && strstr(errors, word), "%s: %s", line, errors);
    cr_assert_eq(strchr(errors, '\n'), errors + strlen(errors) - 1, "%s: more than one line: %s", line, errors);
    snprintf(strict, sizeof strict, "%s -strict", line);
    refuse(strict, word);
}
static void done(void) { cmdline_free(&c); }
TestSuite(cmdline, .fini = done);

/* -- the loop -- */
Test(cmdline, defaults_are_qemus)
{
    accept("-kernel k");
    cr_assert_eq(c.mem_bytes, 128ull << 20);
    cr_assert_eq(c.cpus, 1);
    cr_assert_str_eq(c.machine, "pc");
    cr_assert_eq(c.echr, 1);
    cr_assert_null(c.engine.asked);
    cr_assert(c.engine.chain && c.engine.adapt && c.engine.window == -1);
}

Test(cmdline, one_dash_and_two_are_the_same)
{
    accept("--kernel k --no-reboot -no-shutdown");
    cr_assert_str_eq(c.kernel, "k");
    cr_assert(c.no_reboot && c.no_shutdown);
}

Test(cmdline, argument_may_begin_with_a_dash_or_be_empty)
{
    accept("-kernel k -append -x=1");
    cr_assert_str_eq(c.append, "-x=1");
}

Test(cmdline, a_kernel_test_tools_whole_line)
{
    accept("-nodefaults -m 1G -smp 1 -machine pc,accel=kvm:tcg -cpu host -display none -serial mon:stdio -no-reboot "
           "-kernel "
           "bzImage -initrd i.img -append console=ttyS0%panic=-1 -net none -no-user-config -name vm");
    cr_assert_eq(c.mem_bytes, 1ull << 30);
    cr_assert_str_eq(c.kernel, "bzImage");
    cr_assert_str_eq(c.initrd, "i.img");
    cr_assert_str_eq(c.append, "console=ttyS0 panic=-1");
    cr_assert_str_eq(c.name, "vm");
    cr_assert_str_eq(c.display, "none");
    cr_assert(c.nodefaults && c.no_reboot);
    cr_assert_str_eq(c.engine.asked, "kvm");
}

Test(cmdline, unknown_option_is_named)
{
    refuse("-kernel k -foo", "-foo: invalid option");
    refuse("-kernel k -", "-: invalid option");
    refuse("-kernel k -kerne x", "-kerne: invalid option");
}

Test(cmdline, missing_argument_is_named) { refuse("-kernel", "-kernel: requires an argument"); }

Test(cmdline, stray_word_is_a_disk_image_and_those_are_not_there)
{
    refuse("-kernel k disk.img", "disk image disk.img");
}

Test(cmdline, message_is_one_line_whatever_the_argument)
{
    char line[1200] = "-kernel k -device a\nb\033";
    memset(line + strlen(line), 'x', 900);
    refuse(line, "-device a?b?xxx");
}

Test(cmdline, nothing_to_boot_is_said) { refuse("-m 64", "-kernel FILE is missing"); }

Test(cmdline, options_that_need_kernel_say_so)
{
    refuse("-append x", "-append: only with -kernel");
    refuse("-initrd x", "-initrd: only with -kernel");
}

Test(cmdline, no_arguments_at_all_do_not_crash)
{
    char *argv[] = {NULL};
    FILE *err = fmemopen(errors, sizeof errors, "w");
    cr_assert_eq(cmdline_parse(&c, 0, argv, err), 2);
    fclose(err);
    cr_assert(strstr(errors, "ringdown: nothing to boot"));
}

/* -- what is not there -- */
Test(cmdline, what_is_not_there_yet_is_refused_by_name)
{
    refuse("-kernel k -drive file=x,if=virtio", "-drive file=x,if=virtio: not supported");
    refuse("-kernel k -cdrom x", "-cdrom x");
    refuse("-kernel k -hda x", "-hda x");
    refuse("-kernel k -netdev user,id=n", "-netdev user,id=n");
    refuse("-kernel k -object rng-random,id=r", "-object");
    refuse("-kernel k -qmp unix:/p,server,nowait", "-qmp unix:/p");
    refuse("-kernel k -gdb tcp::1234", "-gdb tcp::1234");
    refuse("-kernel k -s", "-s: not");
    refuse("-kernel k -trace t", "-trace t: not");
    refuse("-kernel k -snapshot", "-snapshot");
    refuse("-kernel k -bios b", "-bios b");
    refuse("-kernel k -device virtio-rng-pci", "virtio-rng-pci");
    refuse("-kernel k -display gtk", "-display gtk");
    refuse("-kernel k -nic user", "-nic user");
}

Test(cmdline, malformed_argument_of_a_refused_option_is_the_first_complaint)
{
    refuse("-kernel k -drive file=x,,,", "-drive file=x,,,: an element");
    refuse("-kernel k -gdb foo", "'foo' is not a character backend");
}

Test(cmdline, what_has_no_effect_is_warned_of_once)
{
    warn("-kernel k -smbios type=1,serial=a -smbios type=2", "-smbios type=1");
    warn("-kernel k -global a.b=c", "-global a.b=c");
    warn("-kernel k -uuid 1-2", "-uuid");
    warn("-kernel k -rtc base=localtime", "-rtc");
    warn("-kernel k -parallel stdio", "-parallel");
}

Test(cmdline, what_is_nearly_met_is_silent_but_for_strict)
{
    accept("-kernel k -no-hpet -enable-kvm");
    refuse("-kernel k -enable-kvm -strict", "-enable-kvm");
}

Test(cmdline, refusal_goes_before_warnings) { refuse("-kernel k -uuid 1 -snapshot", "-snapshot"); }

/* -- machine, memory, CPUs -- */
Test(cmdline, memory_sizes)
{
    accept("-kernel k -m 512");
    cr_assert_eq(c.mem_bytes, 512ull << 20);
    accept("-kernel k -m 2048M");
    cr_assert_eq(c.mem_bytes, 2048ull << 20);
    accept("-kernel k -m size=1G");
    cr_assert_eq(c.mem_bytes, 1ull << 30);
    accept("-kernel k -m 1048577b");
    cr_assert_eq(c.mem_bytes, (1ull << 20) + 4096);
    refuse("-kernel k -m 0", "-m 0: guest memory is from");
    refuse("-kernel k -m 999T", "-m 999T");
    refuse("-kernel k -m 12Q", "'12Q' is not a size");
    refuse("-kernel k -m 1G,slots=2,maxmem=2G", "hot-plug");
}

Test(cmdline, cpu_counts)
{
    accept("-kernel k -smp 1");
    accept("-kernel k -smp cpus=1,sockets=1,cores=1,threads=1");
    refuse("-kernel k -smp 2", "-smp 2: only one CPU");
    scan("-smp 4,sockets=1,cores=4,threads=1");
    cr_assert_eq(c.cpus, 4);
    scan("-smp cores=2");
    cr_assert_eq(c.cpus, 2);
    refuse("-kernel k -smp 0", "cpus= is not a number");
    refuse("-kernel k -smp 3,cores=2", "do not make up 3");
    refuse("-kernel k -smp 4,maxcpus=2", "maxcpus is less");
    refuse("-kernel k -smp 1,foo=2", "'foo'");
    refuse("-kernel k -smp sockets=65535,cores=65535,threads=65535,dies=65535", "too many CPUs");
}

Test(cmdline, machines_and_their_properties)
{
    accept("-kernel k -machine pc -M type=pc,usb=off,vmport=off");
    accept("-kernel k -machine pc-i440fx-7.2,accel=tcg");
    cr_assert_str_eq(c.machine, "pc");
    cr_assert_str_eq(c.engine.asked, "tcg");
    warn("-kernel k -machine q35", "q35");
    warn("-kernel k -M pc,memory-backend=m0", "memory-backend");
    warn("-kernel k -M pc,smm=on", "smm=on");
    refuse("-kernel k -machine isapc", "no machine 'isapc'");
    refuse("-kernel k -machine pc,foo=1", "'foo'");
    refuse("-kernel k -machine pc,", "an element");
    refuse("-kernel k -machine accel=xen:hax", "'xen:hax'");
}

Test(cmdline, cpu_models_and_features)
{
    accept("-kernel k -cpu max,la57=off,migratable=no,-vmx,topoext=on");
    cr_assert_str_eq(c.cpu_model, "max");
    cr_assert_str_eq(props_get(&c.cpu_props, "vmx"), "off");
    cr_assert_str_eq(props_get(&c.cpu_props, "la57"), "off");
    accept("-kernel k -cpu qemu64");
    warn("-kernel k -cpu kvm64,+vmx,-avx", "kvm64,+vmx,-avx");
    cr_assert_str_eq(c.cpu_spec, "kvm64,avx=off");
    cr_assert_str_eq(props_get(&c.cpu_props, "vmx"), "on");
    cr_assert_str_eq(props_get(&c.cpu_props, "avx"), "off");
    accept("-kernel k -cpu host,-avx512f,avx2=off,kvm=off");
    cr_assert_str_eq(c.cpu_spec, "host,avx512f=off,avx2=off");
    warn("-kernel k -cpu max,+warp-drive,sse4.2=perhaps", "warp-drive");
    cr_assert_str_eq(c.cpu_spec, "max");
    warn("-kernel k -cpu Haswell-noTSX-IBRS", "Haswell-noTSX-IBRS");
    warn("-kernel k -cpu EPYC-v3", "EPYC-v3");
    refuse("-kernel k -cpu foo", "no CPU model 'foo'");
    refuse("-kernel k -cpu host,+", "no name");
}

/* -- engine -- */
Test(cmdline, engine_properties)
{
    accept("-kernel k -accel "
           "bt,window=off,user=translated,adapt=on,chain=off,max-insns=1,tc=2M,evict-random=100,force-exit=50,seed="
           "0xffffffffff");
    cr_assert_eq(c.engine.engine, ENGINE_BT);
    cr_assert_eq(c.engine.window, 0);
    cr_assert_eq(c.engine.user, USER_TRANSLATED);
    cr_assert(c.engine.adapt && !c.engine.chain);
    cr_assert_eq(c.engine.max_insns, 1);
    cr_assert_eq(c.engine.tc_bytes, 2ull << 20);
    cr_assert_eq(c.engine.evict_random, 100);
    cr_assert_eq(c.engine.force_exit, 50);
    cr_assert_eq(c.engine.seed, 0xffffffffff);
}

Test(cmdline, first_engine_that_is_there_is_taken_and_only_its_properties)
{
    accept("-kernel k -accel kvm -accel tcg,thread=multi,tb-size=16 -accel bt,max-insns=7");
    cr_assert_str_eq(c.engine.asked, "kvm");
    cr_assert_eq(c.engine.max_insns, 0);
    accept("-kernel k -accel bt,adapt=off");
    cr_assert_not(c.engine.adapt);
    accept("-kernel k -machine accel=xen:bt");
    cr_assert_str_eq(c.engine.asked, "bt");
}

Test(cmdline, engine_values_that_are_wrong_or_not_there)
{
    refuse("-kernel k -accel foo", "'foo'");
    refuse("-kernel k -accel bt,foo=1", "'foo'");
    refuse("-kernel k -accel bt,user=maybe", "'maybe'");
    refuse("-kernel k -accel bt,max-insns=99999999999", "'99999999999'");
    refuse("-kernel k -accel bt,tc=0", "'0'");
}

Test(cmdline, trap_is_an_engine_of_its_own)
{
    accept("-kernel k -accel trap,user=translated");
    cr_assert_eq(c.engine.engine, ENGINE_TRAP);
    cr_assert_str_eq(c.engine.asked, "trap");
    accept("-kernel k -accel bt");
    cr_assert_eq(c.engine.engine, ENGINE_BT);
}

Test(cmdline, singlestep_is_one_instruction_per_block)
{
    accept("-kernel k -singlestep");
    cr_assert_eq(c.engine.max_insns, 1);
}

/* -- devices -- */
Test(cmdline, devices_keep_name_and_properties)
{
    uint64_t base = 0;
    accept("-kernel k -device isa-debug-exit,iobase=0xf4,iosize=4");
    cr_assert_eq(c.devices.n, 1);
    cr_assert_str_eq(props_get(&c.devices.v[0].props, "driver"), "isa-debug-exit");
    cr_assert_eq(props_u64(&c.devices.v[0].props, "iobase", 0xffff, &base), 0);
    cr_assert_eq(base, 0xf4);
}

Test(cmdline, wrong_devices_are_named)
{
    refuse("-kernel k -device foo", "'foo' is not a valid device model name");
    refuse("-kernel k -device isa-debug-exit,foo=1", "no property 'foo'");
    refuse("-kernel k -device isa-debug-exit,iobase=0x10000", "'iobase'");
    refuse("-kernel k -device isa-debug-exit,iobase", "'iobase'");
    refuse("-kernel k -device isa-debugcon,chardev=nope", "'nope'");
    refuse("-kernel k -device {\"driver\":\"x\"}", "JSON");
    refuse("-kernel k -device id=x", "name is missing");
}

/* -- consoles -- */
Test(cmdline, serial_backends)
{
    accept("-kernel k -monitor none -serial stdio -serial null -serial pty -serial file:/a,b=c -serial "
           "unix:/p,,q,server,nowait -serial tcp:localhost:4444,server=on,wait=off -serial none -serial pipe:/pp "
           "-serial tcp::1");
    cr_assert_eq(c.serial.n, 9);
    cr_assert_eq(c.serial.v[0].kind, CHR_STDIO);
    cr_assert(c.serial.v[0].signal && !c.serial.v[0].mux);
    cr_assert_eq(c.serial.v[2].kind, CHR_PTY);
    cr_assert_eq(c.serial.v[3].kind, CHR_FILE);
    cr_assert_str_eq(c.serial.v[3].path, "/a,b=c");
    cr_assert_eq(c.serial.v[4].kind, CHR_UNIX);
    cr_assert_str_eq(c.serial.v[4].path, "/p,q");
    cr_assert(c.serial.v[4].server && !c.serial.v[4].wait);
    cr_assert_eq(c.serial.v[5].kind, CHR_TCP);
    cr_assert_str_eq(c.serial.v[5].host, "localhost");
    cr_assert_str_eq(c.serial.v[5].port, "4444");
    cr_assert_eq(c.serial.v[6].kind, CHR_NONE);
    cr_assert_str_eq(c.serial.v[7].path, "/pp");
    cr_assert_null(c.serial.v[8].host);
    cr_assert_not(c.serial.v[8].server);
}

Test(cmdline, listening_socket_waits_unless_told_not_to)
{
    accept("-kernel k -serial unix:/p,server -monitor none");
    cr_assert(c.serial.v[0].server && c.serial.v[0].wait);
}

Test(cmdline, ipv6_host_is_in_brackets)
{
    accept("-kernel k -serial tcp:[::1]:22 -monitor none");
    cr_assert_str_eq(c.serial.v[0].host, "::1");
    cr_assert_str_eq(c.serial.v[0].port, "22");
}

Test(cmdline, mon_stdio_shares_the_terminal_and_passes_ctrl_c)
{
    accept("-kernel k -serial mon:stdio");
    cr_assert(c.serial.v[0].mux && !c.serial.v[0].signal);
    cr_assert_eq(c.serial.n, 1);
    cr_assert_eq(c.monitor.n, 0);
}

Test(cmdline, wrong_backends_are_named)
{
    refuse("-kernel k -serial foo", "'foo' is not a character backend");
    refuse("-kernel k -serial file:", "nothing follows");
    refuse("-kernel k -serial tcp:host", "'host' is not HOST:PORT");
    refuse("-kernel k -serial tcp:host:99999", "HOST:PORT");
    refuse("-kernel k -serial unix:/p,foo=1", "'foo'");
    refuse("-kernel k -serial unix:/p,server=perhaps", "on or off");
    refuse("-kernel k -serial telnet:h:1", "telnet:h:1");
}

Test(cmdline, nographic_puts_serial_and_monitor_on_the_terminal)
{
    accept("-kernel k -nographic");
    cr_assert_eq(c.serial.n, 1);
    cr_assert(c.serial.v[0].kind == CHR_STDIO && c.serial.v[0].mux);
    cr_assert_eq(c.monitor.n, 0);
}

Test(cmdline, nographic_gives_each_what_the_other_leaves)
{
    accept("-kernel k -nographic -monitor none");
    cr_assert(c.serial.n == 1 && c.serial.v[0].kind == CHR_STDIO && !c.serial.v[0].mux);
    accept("-kernel k -nographic -serial file:f");
    cr_assert(c.monitor.n == 1 && c.monitor.v[0].kind == CHR_STDIO);
    accept("-kernel k -nographic -serial stdio");
    cr_assert_eq(c.monitor.n, 0);
    accept("-kernel k -nographic -debugcon stdio");
    cr_assert_eq(c.serial.v[0].kind, CHR_NULL);
}

Test(cmdline, without_any_display_option_the_terminal_is_the_console)
{
    accept("-kernel k");
    cr_assert(c.serial.v[0].kind == CHR_STDIO && c.serial.v[0].mux);
    accept("-kernel k -display none");
    cr_assert_eq(c.serial.v[0].kind, CHR_NULL);
}

Test(cmdline, nodefaults_adds_no_port)
{
    accept("-kernel k -nodefaults -nographic");
    cr_assert_eq(c.serial.n, 0);
    cr_assert_eq(c.monitor.n, 0);
}

Test(cmdline, terminal_has_one_user)
{
    refuse("-kernel k -serial stdio -serial stdio", "already used by -serial stdio");
    refuse("-kernel k -serial mon:stdio -monitor stdio", "already used by -serial mon:stdio");
}

Test(cmdline, named_backends_are_resolved)
{
    accept("-kernel k -chardev file,id=f,path=/x,append=on -serial chardev:f -chardev "
           "socket,id=s,path=/s,server=on,wait=off "
           "-serial chardev:s -chardev socket,id=t,host=h,port=5,logfile=/l -debugcon chardev:t -monitor none");
    cr_assert(c.serial.v[0].kind == CHR_FILE && c.serial.v[0].append);
    cr_assert_str_eq(c.serial.v[0].path, "/x");
    cr_assert(c.serial.v[1].kind == CHR_UNIX && c.serial.v[1].server && !c.serial.v[1].wait);
    cr_assert(c.debugcon.v[0].kind == CHR_TCP);
    cr_assert_str_eq(c.debugcon.v[0].port, "5");
    cr_assert_str_eq(c.debugcon.v[0].logfile, "/l");
}

Test(cmdline, multiplexed_backend_may_be_used_twice)
{
    accept("-kernel k -chardev stdio,id=c,mux=on,signal=off -serial chardev:c -mon chardev=c");
    cr_assert(c.serial.v[0].mux && !c.serial.v[0].signal);
    cr_assert_eq(c.monitor.v[0].kind, CHR_STDIO);
    refuse("-kernel k -chardev stdio,id=c -serial chardev:c -mon c", "already used");
}

Test(cmdline, wrong_named_backends_are_named)
{
    refuse("-kernel k -serial chardev:x", "'x'");
    refuse("-kernel k -chardev null,id=a -chardev null,id=a", "id 'a'");
    refuse("-kernel k -chardev null", "id= is missing");
    refuse("-kernel k -chardev foo,id=a", "'foo'");
    refuse("-kernel k -chardev file,id=a", "path= is missing");
    refuse("-kernel k -chardev socket,id=a,path=/p,port=3", "either");
    refuse("-kernel k -chardev socket,id=a", "needs path=");
    refuse("-kernel k -chardev null,id=a,path=/p", "'path'");
    refuse("-kernel k -mon chardev=c,mode=foo", "'foo'");
}

/* -- ends and logs -- */
Test(cmdline, actions)
{
    accept("-kernel k -action reboot=shutdown,shutdown=pause,panic=none");
    cr_assert(c.no_reboot && c.no_shutdown);
    cr_assert_str_eq(c.action_panic, "none");
    refuse("-kernel k -action reboot=none", "'none'");
    refuse("-kernel k -action foo=none", "'foo'");
}

Test(cmdline, logging_and_outputs)
{
    accept("-kernel k -d in_asm,int -d irq -D /log -stats /s -echr 2");
    cr_assert_eq(c.log_mask, 1u << LOG_IN_ASM | 1u << LOG_INT | 1u << LOG_IRQ);
    cr_assert_str_eq(c.log_file, "/log");
    cr_assert_str_eq(c.stats_file, "/s");
    cr_assert_eq(c.echr, 2);
    refuse("-kernel k -d in_as", "'in_as'");
    refuse("-kernel k -echr 256", "-echr 256");
}

/* -- every form of the list of options that tools use, taken apart without a complaint -- */
Test(cmdline, options_of_other_tools_parse)
{
    scan("-drive "
         "file=a,,b.qcow2,if=none,id=d0,index=1,media=cdrom,format=qcow2,cache=unsafe,snapshot=on,readonly,discard="
         "unmap");
    cr_assert_str_eq(props_get(&c.drives.v[0].props, "file"), "a,b.qcow2");
    cr_assert_str_eq(props_get(&c.drives.v[0].props, "readonly"), "");
    scan("-netdev user,id=n0,hostfwd=tcp:127.0.0.1:2222-:22,net=169.254.0.0/16,restrict=on -netdev tap,id=n1,ifname=t");
    cr_assert_str_eq(props_get(&c.netdevs.v[0].props, "type"), "user");
    cr_assert_eq(c.netdevs.n, 2);
    scan("-object rng-random,filename=/dev/urandom,id=r -object memory-backend-memfd,id=m,size=1G,share=on");
    cr_assert_str_eq(props_get(&c.objects.v[1].props, "qom-type"), "memory-backend-memfd");
    scan("-qmp unix:/q,server=on,wait=off -qmp tcp:localhost:4445,server,nowait -gdb tcp:localhost:1234 -s -S");
    cr_assert_eq(c.qmp.n, 2);
    cr_assert(c.start_stopped && c.gdb_default);
    scan("-virtfs local,path=/p,mount_tag=t,security_model=none,multidevs=remap -fsdev local,id=f,path=/p,readonly=on");
    cr_assert_str_eq(props_get(&c.virtfs.v[0].props, "fsdriver"), "local");
    scan("-net nic,model=virtio -net user,hostfwd=tcp::1-:2 -nic user,model=virtio-net-pci -vga std -boot once=d -boot "
         "c");
    cr_assert_str_eq(props_get(&c.boot.v[1].props, "order"), "c");
    scan("-numa node,mem=1G -tpmdev emulator,id=t,chardev=c -fw_cfg name=opt/x,string=y -uuid 1 -pidfile p -daemonize "
         "-vnc :1");
    cr_assert(c.daemonize);
    scan("-rtc base=utc,clock=vm,driftfix=slew -watchdog-action none -hda h -cdrom c -fda f -pflash p -bios b -global "
         "a.b=c");
    cr_assert_eq(c.drive_paths.n, 4);
    cr_assert_str_eq(c.drive_paths.v[1].opt, "-cdrom");
    cr_assert_str_eq(c.drive_paths.v[1].text, "c");
    scan("-device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01 -device scsi-hd,drive=d0,bus=scsi0.0");
    cr_assert_str_eq(props_get(&c.devices.v[1].props, "bus"), "scsi0.0");
}

/* -- probing -- */
static const char *info_text(const char *line)
{
    static char text[32768];
    cr_assert_eq(run(cmdline_parse, line), 0, "%s: %s", line, errors);
    cr_assert_neq(c.action, CMDLINE_RUN, "%s", line);
    memset(text, 0, sizeof text);
    FILE *f = fmemopen(text, sizeof text, "w");
    cmdline_print_info(&c, f);
    fclose(f);
    return text;
}

Test(cmdline, version_and_help_begin_as_tools_expect)
{
    cr_assert_eq(strncmp(info_text("-version"), "QEMU emulator version 7.2.0 (ringdown ", 38), 0);
    cr_assert_eq(strncmp(info_text("--version"), "QEMU emulator version 7.2.0 (ringdown ", 38), 0);
    cr_assert_eq(strncmp(info_text("-help"), "QEMU emulator version 7.2.0", 27), 0);
    cr_assert_eq(strncmp(info_text("-h"), "QEMU emulator version 7.2.0", 27), 0);
}

Test(cmdline, help_lists_what_works_and_only_names_what_does_not)
{
    const char *text = info_text("-help");
    cr_assert(strstr(text, "\n-kernel FILE"));
    cr_assert(strstr(text, "\n-nographic"));
    cr_assert_null(strstr(text, "\n-netdev"));
    cr_assert(strstr(text, " -netdev"));
}

Test(cmdline, help_wins_over_what_follows_and_what_is_missing)
{
    info_text("-machine help");
    info_text("-version -foo");
    refuse("-foo -version", "-foo");
}

Test(cmdline, lists_hold_what_tools_grep_for)
{
    cr_assert(strstr(info_text("-device help"), "name \"isa-debug-exit\", bus ISA"));
    cr_assert_null(strstr(info_text("-device ?"), "virtio-net-pci"));
    cr_assert(strstr(info_text("-device isa-debug-exit,help"), "iobase="));
    cr_assert(strstr(info_text("-cpu help"), "x86 host"));
    cr_assert(strstr(info_text("-machine help"), "\npc "));
    cr_assert(strstr(info_text("-accel help"), "\nbt\n"));
    cr_assert(strstr(info_text("-d help"), "in_asm"));
}
