/* The host's local APIC: x2APIC mode where the CPU has it, otherwise xAPIC. */
#pragma once

#include "arch/x86/pt_env.h"

/* Boot CPU: decides the mode and maps the registers when they are in memory. */
enum status apic_init(const struct pt_env *env, hpa_t root);
/* Each CPU: enables its APIC, masks every local source. */
void apic_enable(void);

bool apic_is_x2(void); /* after apic_init() */
void apic_eoi(void);
void apic_send_fixed(uint32_t apic_id, uint8_t vector);
void apic_send_init(uint32_t apic_id);
void apic_send_startup(uint32_t apic_id, uint8_t page); /* page: physical address >> 12 */
void apic_broadcast_nmi(void);                          /* to all but this CPU */
/* An interrupt (HOST_VECTOR_TIMER) when the TSC reaches `tsc`; UINT64_MAX: none. False: no TSC-deadline timer
 * here. */
bool apic_set_deadline(uint64_t tsc);
