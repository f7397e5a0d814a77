/* Every instruction of VMX, SMX, SVM, SGX and TDX, in every mode: none may do anything but fault. VMCALL is
 * Bulkhead's hypercall and answers -1. */
#include "hostile.h"

#define OP(...)                                                                                              \
    {                                                                                                        \
        sizeof((uint8_t[]){__VA_ARGS__}),                                                                    \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

static const struct {
    const char *name;
    struct {
        uint8_t size, bytes[8];
    } code;
} insns[] = {
    {"VMLAUNCH", OP(0x0f, 0x01, 0xc2)},
    {"VMRESUME", OP(0x0f, 0x01, 0xc3)},
    {"VMXOFF", OP(0x0f, 0x01, 0xc4)},
    {"VMXON", OP(0xf3, 0x0f, 0xc7, 0x33)},
    {"VMCLEAR", OP(0x66, 0x0f, 0xc7, 0x33)},
    {"VMPTRLD", OP(0x0f, 0xc7, 0x33)},
    {"VMPTRST", OP(0x0f, 0xc7, 0x3b)},
    {"VMREAD register", OP(0x0f, 0x78, 0xc8)},
    {"VMREAD memory", OP(0x0f, 0x78, 0x03)},
    {"VMWRITE register", OP(0x0f, 0x79, 0xc8)},
    {"VMWRITE memory", OP(0x0f, 0x79, 0x03)},
    {"INVEPT", OP(0x66, 0x0f, 0x38, 0x80, 0x03)},
    {"INVVPID", OP(0x66, 0x0f, 0x38, 0x81, 0x03)},
    {"VMFUNC", OP(0x0f, 0x01, 0xd4)},
    {"GETSEC", OP(0x0f, 0x37)},
    {"RSM", OP(0x0f, 0xaa)},
    {"VMRUN", OP(0x0f, 0x01, 0xd8)},
    {"VMMCALL", OP(0x0f, 0x01, 0xd9)},
    {"VMLOAD", OP(0x0f, 0x01, 0xda)},
    {"VMSAVE", OP(0x0f, 0x01, 0xdb)},
    {"STGI", OP(0x0f, 0x01, 0xdc)},
    {"CLGI", OP(0x0f, 0x01, 0xdd)},
    {"INVLPGA", OP(0x0f, 0x01, 0xdf)},
    {"ENCLS", OP(0x0f, 0x01, 0xcf)},
    {"ENCLU", OP(0x0f, 0x01, 0xd7)},
    {"ENCLV", OP(0x0f, 0x01, 0xc0)},
    {"PCONFIG", OP(0x0f, 0x01, 0xc5)},
    {"SEAMCALL", OP(0x66, 0x0f, 0x01, 0xcf)},
    {"TDCALL", OP(0x66, 0x0f, 0x01, 0xcc)},
};

static bool one(unsigned insn, enum lab_mode mode, uint64_t *refused)
{
    bool good = true;
    for (unsigned variant = 0; variant < 3; variant++) {
        lab_clear();
        lab.gpr[0] = variant;
        lab.gpr[1] = 0x4000 + 2 * variant; /* a VMCS field */
        lab.gpr[3] = variant == 2 ? 0xff000 : 0x7e00;
        unsigned vector = lab_execute(mode, insns[insn].code.bytes, insns[insn].code.size);
        if (vector == VECTOR_UD || vector == VECTOR_GP)
            ++*refused;
        else
            good = false;
        if (!good) {
            print("hostile: vmx: %s in mode %s ended with vector %u\n", insns[insn].name,
                  lab_mode_names[mode], (uint64_t)vector);
            return false;
        }
    }
    return true;
}

void program_vmx(unsigned step)
{
    static const uint8_t vmcall[] = {0x0f, 0x01, 0xc1};
    uint64_t refused = 0, calls = 0;
    bool good = true;
    (void)step;
    for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
        for (unsigned i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
            good &= one(i, mode, &refused);
        lab_clear();
        bool answered = lab_execute(mode, vmcall, sizeof(vmcall)) == VECTOR_BP;
        if (!answered || (uint32_t)lab.gpr[0] != UINT32_MAX) {
            print("hostile: vmx: VMCALL in mode %s: vector %u\n", lab_mode_names[mode], (uint64_t)lab.vector);
            good = false;
        }
        calls++;
    }
    verdict("vmx", good, "%u instructions refused in %u modes, %u VMCALLs answered", refused,
            (uint64_t)MODE_COUNT, calls);
}
