"""Events and their fields for the form that edits them: names, help, and which editor a field wants. A table only."""

from functools import cache
from typing import Any

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.registers import Vendor
from engine.arch.rights import Kind
from engine.host.mm import Placement

translate = QCoreApplication.translate


class Field(msgspec.Struct, frozen=True):
    """``editor``: what a type alone does not tell: "size", "kernel", "pcpu", "vm", "vcpu", "slot", "path", "hidden";
    '' leaves it to the type. ``low``, ``high``: of a number. ``needs``: another field of the form, by path, and the
    values of it with which this one counts."""

    label: str
    help: str = ""
    editor: str = ""
    low: int = 0
    high: int = 2**31 - 1
    needs: tuple[str, tuple[Any, ...]] | None = None


class Told(msgspec.Struct, frozen=True):
    """An event for the user: what it is called, and what it does in one sentence."""

    name: str
    help: str


STORES = ("kind", (Kind.WRITE, Kind.SHADOW_WRITE))
PINNED = ("placement", (Placement.CONTIGUOUS,))
INTEL = ("features.vendor", (Vendor.INTEL,))
AMD = ("features.vendor", (Vendor.AMD,))


@cache
def fields() -> dict[str, Field]:
    """By "Struct.name" where a struct's field is special, else by "name"."""
    return {
        # where
        "vm": Field(translate("Fields", "VM"), editor="vm"),
        "vcpu": Field(translate("Fields", "vCPU"), editor="vcpu"),
        "pcpu": Field(translate("Fields", "pCPU"), editor="pcpu"),
        "slot": Field(translate("Fields", "Memslot"), editor="slot"),
        "cpu": Field(translate("Fields", "CPU"), translate("Fields", "Of the image, from 0."), high=4095),
        # addresses and sizes
        "address": Field(translate("Fields", "Address"), translate("Fields", "In hex, 64 bits.")),
        "MapGuestPages.address": Field(
            translate("Fields", "Guest-virtual"), translate("Fields", "Where the pages appear in the guest.")
        ),
        "GuestAccess.address": Field(
            translate("Fields", "Guest-virtual"), translate("Fields", "The address that the guest uses.")
        ),
        "AccessMemory.address": Field(
            translate("Fields", "Address"), translate("Fields", "Linear, as the program uses it.")
        ),
        "Poke.address": Field(
            translate("Fields", "Physical address"), translate("Fields", "Of the entry, a multiple of its size.")
        ),
        "gpa": Field(translate("Fields", "Guest-physical"), translate("Fields", "Where it begins.")),
        "HostMemory.gpa": Field(translate("Fields", "Guest-physical"), translate("Fields", "Any address in the page.")),
        "target": Field(translate("Fields", "Guest-physical"), translate("Fields", "What the pages are mapped to.")),
        "root": Field(
            translate("Fields", "Top-level table"), translate("Fields", "Its guest-physical address; CR3 names it.")
        ),
        "tables": Field(
            translate("Fields", "New tables from"),
            translate("Fields", "Guest-physical; each table takes the next 4 KiB."),
        ),
        "at": Field(
            translate("Fields", "Host-physical"),
            translate("Fields", "Where the contiguous memory begins."),
            needs=PINNED,
        ),
        "size": Field(
            translate("Fields", "Size"), translate("Fields", "Bytes, or with a unit: 64 MiB."), editor="size"
        ),
        "GuestAccess.size": Field(translate("Fields", "Bytes")),
        "AccessMemory.size": Field(translate("Fields", "Bytes")),
        "Poke.size": Field(translate("Fields", "Bytes")),
        "ZapGuest.size": Field(translate("Fields", "Size"), translate("Fields", "0: everything."), editor="size"),
        "FillGuestPages.size": Field(
            translate("Fields", "Size"), translate("Fields", "0: the words once."), editor="size"
        ),
        "page_size": Field(
            translate("Fields", "Page size"),
            translate("Fields", "4 KiB, 2 MiB (4 MiB in 32-bit tables) or 1 GiB."),
            editor="size",
        ),
        "ram": Field(
            translate("Fields", "RAM map"),
            translate("Fields", "Start and size of each range: 0x0 3 GiB, 0x1_0000_0000 1 GiB. Empty: RAM from 0."),
        ),
        "start": Field(translate("Fields", "From")),
        "hva": Field(
            translate("Fields", "VMM address"), translate("Fields", "Where the VMM maps it, in hex; 0: where it suits.")
        ),
        "ram_size": Field(translate("Fields", "RAM"), translate("Fields", "From address 0."), editor="size"),
        "words": Field(
            translate("Fields", "Words"),
            translate("Fields", "64 bits each, in hex, with spaces between; repeated to fill the size."),
        ),
        # a hypervisor inside a VM
        "LoadNestedKvm.root": Field(
            translate("Fields", "Top-level table"), translate("Fields", "L1-physical; what nCR3 or EPTP will name.")
        ),
        "LoadNestedKvm.tables": Field(
            translate("Fields", "New tables from"), translate("Fields", "L1-physical; each table takes the next 4 KiB.")
        ),
        "levels": Field(translate("Fields", "EPT levels"), translate("Fields", "On AMD its own paging mode decides.")),
        "MapNestedPages.address": Field(
            translate("Fields", "L2-physical"), translate("Fields", "Where the pages appear in the nested guest.")
        ),
        "MapNestedPages.target": Field(
            translate("Fields", "L1-physical"), translate("Fields", "What the pages are mapped to.")
        ),
        "MapL2Pages.root": Field(
            translate("Fields", "Top-level table"), translate("Fields", "Its L2-physical address; CR3 names it.")
        ),
        "MapL2Pages.tables": Field(
            translate("Fields", "New tables from"), translate("Fields", "L2-physical; each table takes the next 4 KiB.")
        ),
        "MapL2Pages.address": Field(
            translate("Fields", "L2-virtual"), translate("Fields", "Where the pages appear in the nested guest.")
        ),
        "MapL2Pages.target": Field(
            translate("Fields", "L2-physical"), translate("Fields", "What the pages are mapped to.")
        ),
        "FillL2Pages.gpa": Field(translate("Fields", "L2-physical"), translate("Fields", "Where it begins.")),
        "EnterNested.root": Field(
            translate("Fields", "nCR3 or EPTP"),
            translate("Fields", "In hex; 0: that of L1's own module."),
            needs=("paging", (True,)),
        ),
        "EnterNested.registers": Field(translate("Fields", "Registers of L2")),
        "paging": Field(translate("Fields", "L1 uses nested paging")),
        "InvalidatePage.address": Field(
            translate("Fields", "Guest-virtual"), translate("Fields", "Any address in the page.")
        ),
        # accesses
        "kind": Field(translate("Fields", "Access")),
        "ChooseSecondStage.kind": Field(translate("Fields", "Second stage")),
        "value": Field(translate("Fields", "Value"), translate("Fields", "In hex.")),
        "GuestAccess.value": Field(
            translate("Fields", "Value"), translate("Fields", "What is stored, in hex."), needs=STORES
        ),
        "AccessMemory.value": Field(
            translate("Fields", "Value"), translate("Fields", "What is stored, in hex."), needs=STORES
        ),
        "ChooseSecondStage.value": Field(
            translate("Fields", "nCR3 or EPTP"), translate("Fields", "In hex."), needs=("kind", ("npt", "ept"))
        ),
        "host": Field(
            translate("Fields", "Host registers"),
            translate("Fields", "Their mode is how deep NPT is walked."),
            needs=("kind", ("npt",)),
        ),
        "implicit": Field(
            translate("Fields", "Implicit supervisor access"),
            translate("Fields", "To a system structure, such as the GDT."),
        ),
        # registers
        "name": Field(translate("Fields", "Register")),
        "registers": Field(translate("Fields", "Registers")),
        "cr3": Field("CR3"),
        "cr0": Field("CR0"),
        "cr2": Field("CR2", editor="hidden"),
        "cr4": Field("CR4"),
        "efer": Field("EFER"),
        "pkru": Field("PKRU"),
        "pkrs": Field("PKRS"),
        "rflags": Field("RFLAGS"),
        "pat": Field("PAT"),
        "cpl": Field("CPL", translate("Fields", "0: supervisor, 3: user."), high=3),
        "cs_l": Field("CS.L", translate("Fields", "The code is 64-bit code.")),
        "pdptes": Field("PDPTEs", editor="hidden"),
        # guest tables
        "mode": Field(translate("Fields", "Format")),
        "write": Field(translate("Fields", "Writable (R/W)")),
        "user": Field(translate("Fields", "User (U/S)")),
        "execute": Field(translate("Fields", "Executable (XD = 0)")),
        "key": Field(translate("Fields", "Protection key"), high=15),
        # the host
        "pcpus": Field(translate("Fields", "pCPUs")),
        "five_level": Field(translate("Fields", "5-level kernel"), translate("Fields", "LA57, where pCPU 0 has it.")),
        "seed": Field(translate("Fields", "Seed"), translate("Fields", "Which frames are given out, in which order.")),
        "features": Field(""),
        "virtualization": Field(translate("Fields", "Virtualization (SVM, VMX)")),
        "mode_based_execute": Field(
            translate("Fields", "Mode-based execute (XU)"),
            translate("Fields", "No kernel here turns it on."),
            needs=INTEL,
        ),
        "npt": Field(translate("Fields", "Nested paging (NPT)")),
        "PcpuSetup.npt": Field(translate("Fields", "Nested paging (NPT)"), needs=AMD),
        "ept": Field(translate("Fields", "EPT")),
        "PcpuSetup.ept": Field(translate("Fields", "EPT"), needs=INTEL),
        "vendor": Field(translate("Fields", "Vendor")),
        "maxphyaddr": Field("MAXPHYADDR", translate("Fields", "Bits of a physical address."), low=32, high=52),
        "la57": Field("LA57"),
        "ChangeMode.la57": Field(translate("Fields", "To 5-level (CR4.LA57 = 1)")),
        "way": Field(translate("Fields", "Way")),
        "ChangeMode.root": Field(translate("Fields", "Loads"), translate("Fields", "What CR3 names afterwards.")),
        "nx": Field("NX"),
        "page1gb": Field(translate("Fields", "1-GiB pages")),
        "pse36": Field("PSE-36"),
        "pcid": Field("PCID"),
        "smep": Field("SMEP"),
        "smap": Field("SMAP"),
        "pku": Field("PKU"),
        "pks": Field("PKS"),
        "cet": Field("CET"),
        "lam": Field("LAM"),
        "lass": Field("LASS"),
        "execute_only": Field(translate("Fields", "Execute-only")),
        "walk4": Field(translate("Fields", "4 levels")),
        "walk5": Field(translate("Fields", "5 levels")),
        "uncacheable": Field(translate("Fields", "UC tables")),
        "write_back": Field(translate("Fields", "WB tables")),
        "page2mb": Field(translate("Fields", "2-MiB pages")),
        "accessed_dirty": Field(translate("Fields", "A/D bits")),
        "advanced_info": Field(translate("Fields", "Advanced exit information")),
        "supervisor_shadow_stack": Field(translate("Fields", "Supervisor shadow stack")),
        # KVM
        "kernel": Field(translate("Fields", "Kernel"), editor="kernel"),
        "LoadKvm.pcpu": Field(
            translate("Fields", "On pCPU"), translate("Fields", "The one that runs kvm_init."), editor="pcpu"
        ),
        "parameters": Field(translate("Fields", "Module parameters")),
        "Parameters.npt": Field("npt"),
        "Parameters.ept": Field("ept"),
        "eptad": Field("eptad", translate("Fields", "A/D flags of EPT.")),
        "bugs": Field(translate("Fields", "Bugs, nested")),
        "tdp_mmu": Field("tdp_mmu", translate("Fields", "Whether the TDP MMU is used.")),
        "nested": Field("nested"),
        "nx_huge_pages": Field("nx_huge_pages"),
        "allow_smaller_maxphyaddr": Field("allow_smaller_maxphyaddr"),
        "mmio_caching": Field("mmio_caching"),
        "cpuid": Field("CPUID"),
        "backing": Field(translate("Fields", "Backing")),
        "pages": Field(translate("Fields", "Pages")),
        "placement": Field(translate("Fields", "Placement")),
        "read_only": Field(translate("Fields", "Read-only")),
        "image": Field(translate("Fields", "Memory image")),
        "SetMemslot.image": Field(
            translate("Fields", "Holds an image"), translate("Fields", "Guest-physical for physical address.")
        ),
        "path": Field(translate("Fields", "File"), editor="path"),
        "ImageRef.size": Field("", editor="hidden"),
        "action": Field(translate("Fields", "What it does")),
        "on": Field(translate("Fields", "On")),
    }


def field(struct: type, name: str) -> Field:
    """What there is to know of field ``name`` of ``struct``, or of what it is a kind of; its own name where nothing
    is told of it."""
    table = fields()
    own = (table.get(f"{kind.__name__}.{name}") for kind in struct.__mro__)
    return next(filter(None, own), None) or table.get(name) or Field(name)


@cache
def told() -> dict[type, Told]:
    """Every event, in the order in which they are offered."""
    return {
        ev.BootHost: Told(
            translate("Events", "Boot a host"),
            translate("Events", "A machine with its pCPUs, its RAM and a running kernel."),
        ),
        ev.LoadKvm: Told(
            translate("Events", "Load KVM"), translate("Events", "kvm_init captures what the host is like now.")
        ),
        ev.CreateVm: Told(translate("Events", "Create a VM"), translate("Events", "A VM without memory and vCPUs.")),
        ev.SetMemslot: Told(
            translate("Events", "Add guest memory"),
            translate("Events", "A memslot: guest-physical memory and what backs it."),
        ),
        ev.RestoreGuest: Told(
            translate("Events", "Restore a guest from an image"),
            translate("Events", "A VM whose memory and vCPUs are those of a memory image."),
        ),
        ev.CreateVcpu: Told(
            translate("Events", "Add a vCPU"),
            translate("Events", "A guest's processor, at reset, with the CPUID that it sees."),
        ),
        ev.MapGuestPages: Told(
            translate("Events", "Map guest pages"),
            translate("Events", "The VMM writes page tables of the guest, as a loader does."),
        ),
        ev.FillGuestPages: Told(
            translate("Events", "Fill guest memory"), translate("Events", "The VMM writes data into guest memory.")
        ),
        ev.SetGuestRegisters: Told(
            translate("Events", "Set guest registers"),
            translate("Events", "All registers of a vCPU at once, as KVM_SET_SREGS does."),
        ),
        ev.GuestAccess: Told(
            translate("Events", "Let the guest access memory"),
            translate("Events", "The hardware walks both stages, and KVM answers its exits."),
        ),
        ev.Populate: Told(
            translate("Events", "Populate a memslot"),
            translate("Events", "Every page of the slot gets its SPTE, as if it had been read."),
        ),
        ev.WriteGuestRegister: Told(
            translate("Events", "Write a guest register"),
            translate("Events", "The guest executes MOV or WRMSR: an illegal value raises #GP."),
        ),
        ev.InvalidatePage: Told(
            translate("Events", "Execute INVLPG"),
            translate("Events", "What KVM mirrors of that page is read again from the guest's tables."),
        ),
        ev.LoadNestedKvm: Told(
            translate("Events", "Load a hypervisor in the guest"),
            translate("Events", "It captures the mode that its vCPU is in: it builds its guest's tables so."),
        ),
        ev.MapNestedPages: Told(
            translate("Events", "Map memory of the nested guest"),
            translate("Events", "The hypervisor in the VM (L1) writes its tables for its guest (L2)."),
        ),
        ev.MapL2Pages: Told(
            translate("Events", "Map nested guest pages"),
            translate("Events", "Page tables of L2 itself; L1 must have mapped the memory that they lie in."),
        ),
        ev.FillL2Pages: Told(
            translate("Events", "Fill nested guest memory"),
            translate("Events", "Data of L2; L1 must have mapped the memory that it lies in."),
        ),
        ev.EnterNested: Told(
            translate("Events", "Enter the nested guest"),
            translate("Events", "VMRUN or VM entry by L1: its tables are read in the mode that it is in now."),
        ),
        ev.LeaveNested: Told(
            translate("Events", "Leave the nested guest"),
            translate("Events", "L2 exits to L1 for a reason of its own, such as HLT."),
        ),
        ev.InvalidateNested: Told(
            translate("Events", "Execute INVEPT"),
            translate("Events", "L1 flushes what its EPT translates: L0 lets its mirrors' roots go."),
        ),
        ev.ChangeMode: Told(
            translate("Events", "Change a pCPU's mode"),
            translate("Events", "CR4.LA57 changes, in one of the ways there are."),
        ),
        ev.MoveVcpu: Told(
            translate("Events", "Move a vCPU"), translate("Events", "The scheduler runs it on another pCPU.")
        ),
        ev.HostMemory: Told(
            translate("Events", "Move host memory"),
            translate("Events", "The host moves, unmaps, collapses or ages pages; mmu_notifier tells KVM."),
        ),
        ev.ZapGuest: Told(
            translate("Events", "Zap SPTEs"),
            translate("Events", "KVM drops leaf entries of its tables, or all of them with their roots."),
        ),
        ev.DirtyLogging: Told(
            translate("Events", "Dirty logging"),
            translate("Events", "The SPTEs of a slot lose W, so that every first write is seen."),
        ),
        ev.FlushTlb: Told(
            translate("Events", "Flush TLBs"),
            translate("Events", "No translation cache is modelled, so nothing changes."),
        ),
        ev.DeleteMemslot: Told(
            translate("Events", "Delete a memslot"), translate("Events", "Its memory goes, and the SPTEs that map it.")
        ),
        ev.DestroyVm: Told(
            translate("Events", "Destroy a VM"), translate("Events", "Its tables and its memory are given back.")
        ),
        ev.UnloadKvm: Told(translate("Events", "Unload KVM"), translate("Events", "What it captured is forgotten.")),
        ev.OpenImage: Told(
            translate("Events", "Open a memory image"), translate("Events", "A file becomes physical memory.")
        ),
        ev.ChooseCpu: Told(
            translate("Events", "Choose the image's CPU"), translate("Events", "The registers of that CPU are taken.")
        ),
        ev.ChooseRoot: Told(
            translate("Events", "Choose the root table"), translate("Events", "CR3 is set as by a debugger.")
        ),
        ev.SetRegister: Told(
            translate("Events", "Set a register"), translate("Events", "As by a debugger, with no check but its range.")
        ),
        ev.WriteRegister: Told(
            translate("Events", "Write a register"),
            translate("Events", "As the processor does it: an illegal value raises #GP."),
        ),
        ev.ChooseSecondStage: Told(
            translate("Events", "Choose a second stage"),
            translate("Events", "The image is a host's, and the registers are a guest's."),
        ),
        ev.AccessMemory: Told(
            translate("Events", "Access memory"),
            translate("Events", "Accessed and dirty flags are set, and a store stores."),
        ),
        ev.Poke: Told(
            translate("Events", "Overwrite an entry"), translate("Events", "Somebody writes into physical memory.")
        ),
    }
