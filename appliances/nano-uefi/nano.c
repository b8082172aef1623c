/* nano-uefi: a whole operating system as one EFI program, for tests of the firmware.
 *
 * It speaks on the first serial port. At start it counts its boots in a variable of the firmware and
 * says "nano-uefi: boots=N writes=M secure=S"; S is the firmware's SecureBoot. Then it echoes what is
 * typed. `w` adds one to the variable M and says "writes=M"; Enter says "keys=N", a count that lives
 * in memory alone.
 *
 * With a TPM (2.0, at the addresses of its command response buffer) it also says "pcr=H place=P": how
 * register 16 begins, and a count that is in the TPM's own memory. `x` extends the register, `p` adds
 * one to the count; answers of the TPM that are no success are said as "tpm=CODE".
 *
 *   gcc -Os -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -mno-red-zone
 *       -mno-sse -fpie -fshort-wchar -fno-ident -fno-tree-loop-distribute-patterns -c nano.c -o nano.o
 *   ld -m i386pep --subsystem 10 --entry start --no-insert-timestamp --enable-reloc-section
 *       --dynamicbase --image-base 0x400000 -s -o bootx64.efi nano.o
 *   truncate -s 64K nano.img && mkfs.vfat --invariant -n NANO nano.img
 *   mmd -i nano.img ::EFI ::EFI/BOOT && mcopy -m -i nano.img bootx64.efi ::EFI/BOOT/BOOTX64.EFI
 */
#define EFI __attribute__((ms_abi))
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;
typedef unsigned short chr;

typedef struct { u32 a; unsigned short b, c; u8 d[8]; } Guid;
typedef struct {
	u8 header[24 + 6 * 8]; /* time and virtual memory */
	u64 EFI (*get)(const chr *, const Guid *, u32 *, u64 *, void *);
	void *next;
	u64 EFI (*set)(const chr *, const Guid *, u32, u64, const void *);
} Runtime;
typedef struct {
	u8 header[24 + 8 + 8]; /* vendor, revision */
	void *console[6];
	Runtime *runtime;
	u8 *boot;
} System;

static const Guid own = { 0x6e616e6f, 0x7565, 0x6669, { 1, 2, 3, 4, 5, 6, 7, 8 } };
static const Guid global = { 0x8be4df61, 0x93ca, 0x11d2, { 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c } };
static Runtime *rt;
static u32 writes, keys;
static u8 memory[32768];

static u8 in(unsigned short port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static void out(unsigned short port, u8 v) { __asm__ volatile("outb %0, %1" :: "a"(v), "Nd"(port)); }
static void put(char c) { while (!(in(0x3fd) & 0x20)) { } out(0x3f8, c); }
static void puts(const char *s) { while (*s) put(*s++); }
static void number(u32 n) { if (n > 9) number(n / 10); put('0' + n % 10); }

static u32 read(const chr *name, const Guid *guid, u64 size)
{
	u32 value = 0;
	return rt->get(name, guid, 0, &size, &value) ? 0 : value;
}
static u32 write(const chr *name, u32 value)
{
	/* not volatile, at boot and at run time */
	if (rt->set(name, &own, 7, sizeof value, &value)) puts("nano-uefi: not written\r\n");
	return value;
}

/* TCG: PC Client Platform TPM Profile for TPM 2.0, command response buffer, locality 0. */
#define REGISTER(at) (*(volatile u32 *)(0xfed40000ull + (at)))
static volatile u8 *const buffer = (u8 *)0xfed40080ull;
static int tpm;
static u32 at;
static void byte(u8 v) { buffer[at++] = v; }
static void half(u32 v) { byte(v >> 8); byte(v); }
static void word(u32 v) { half(v >> 16); half(v); }
static u32 answer(u32 from)
{
	u32 v = 0;
	for (u32 i = 0; i < 4; i++) v = v << 8 | buffer[from + i];
	return v;
}
static void begin(u32 code, int authorised)
{
	REGISTER(0x08) = 1; /* the locality */
	REGISTER(0x40) = 1; /* ready for a command */
	while (REGISTER(0x40) & 1) { }
	at = 0;
	half(authorised ? 0x8002 : 0x8001); word(0); word(code);
}
/* The empty password. */
static void authorise(void) { word(9); word(0x40000009); half(0); byte(0); half(0); }
static u32 end(void)
{
	u32 size = at;
	at = 2; word(size);
	REGISTER(0x4c) = 1;
	while (REGISTER(0x4c) & 1) { }
	return answer(6);
}
static void good(u32 code) { if (code) { puts("\r\ntpm="); number(code); puts("\r\n"); } }

#define OWNER 0x40000001
#define PLACE 0x01800001
static u32 place(void)
{
	begin(0x14e, 1); word(OWNER); word(PLACE); authorise(); half(4); half(0);
	return end() ? 0 : answer(16);
}
static void set_place(u32 v)
{
	begin(0x137, 1); word(OWNER); word(PLACE); authorise(); half(4); word(v); half(0);
	good(end());
}
static void extend(void)
{
	begin(0x182, 1); word(16); authorise(); word(1); half(0xb);
	for (int i = 0; i < 32; i++) byte(7);
	good(end());
}
static void say_tpm(void)
{
	if (!tpm) return;
	begin(0x17e, 0); word(1); half(0xb); byte(3); byte(0); byte(0); byte(1);
	good(end());
	u32 begins = answer(30);
	puts(" pcr=");
	for (int i = 28; i >= 0; i -= 4) put("0123456789abcdef"[begins >> i & 15]);
	puts(" place="); number(place());
}
static void find_tpm(void)
{
	tpm = (REGISTER(0x30) & 15) == 1;
	if (!tpm) return;
	/* Switched on, if the firmware has not; the place made, if there is none. */
	begin(0x144, 0); half(0); end();
	begin(0x12a, 1); word(OWNER); authorise(); half(0);
	half(14); word(PLACE); half(0xb); word(0x02060006); half(0); half(4);
	if (!end()) set_place(0);
}

u64 EFI start(void *image, System *system)
{
	u64 EFI (*map)(u64 *, void *, u64 *, u64 *, u32 *) = *(void **)(system->boot + 24 + 4 * 8);
	u64 EFI (*leave)(void *, u64) = *(void **)(system->boot + 24 + 26 * 8);
	u64 size, key, each;
	u32 version;
	rt = system->runtime;
	/* From here on no driver of the firmware takes what is typed. */
	do {
		size = sizeof memory;
		if (map(&size, memory, &key, &each, &version)) return 1;
	} while (leave(image, key));
	__asm__ volatile("cli");
	u32 boots = write(u"boots", read(u"boots", &own, 4) + 1);
	writes = read(u"writes", &own, 4);
	puts("\r\nnano-uefi: boots="); number(boots);
	puts(" writes="); number(writes);
	puts(" secure="); number(read(u"SecureBoot", &global, 1));
	find_tpm();
	say_tpm();
	puts("\r\n");
	for (;;) {
		if (!(in(0x3fd) & 1)) { __asm__ volatile("pause"); continue; }
		char c = in(0x3f8);
		if (c == '\r' || c == '\n') {
			puts("\r\nkeys="); number(keys); say_tpm(); puts("\r\n");
			continue;
		}
		keys++;
		put(c);
		if (tpm && c == 'x') extend();
		if (tpm && c == 'p') set_place(place() + 1);
		if (c == 'w') {
			writes = write(u"writes", writes + 1);
			puts("\r\nwrites="); number(writes); puts("\r\n");
		}
	}
}
