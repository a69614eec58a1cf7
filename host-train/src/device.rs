//! Where tensors live, and the things that `tch` cannot say about memory and CUDA.
//!
//! The program links libtorch's CPU library alone, so one binary serves both kinds of machine: if a CUDA library lies
//! beside the CPU library that was loaded, it is opened before anything asks libtorch about CUDA (it caches its answer).

use std::{ffi::c_void, path::PathBuf};

use tch::{Cuda, Device, Kind, Tensor};

use crate::trainer::Amp;

/// What was asked for on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The processor.
    Cpu,
    /// The first CUDA device, or an error.
    Cuda,
    /// The first CUDA device if it works, the processor otherwise.
    Auto,
}

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No library or no driver.
    #[error(
        "device cuda: libtorch finds no usable CUDA device (expected a driver, and a libtorch with libtorch_cuda.so; see the README)"
    )]
    NoCuda,
    /// A device that fails its first sum.
    #[error("device cuda: a first addition failed: {0}")]
    Broken(String),
    /// Other number formats than f32 are for GPUs.
    #[error("--amp {} works on CUDA alone, and the device is {device:?}: use --amp off", amp.name())]
    Amp {
        /// As asked for.
        amp: Amp,
        /// Of this run.
        device: Device,
    },
    /// Another libtorch than this program was made for.
    #[error("this libtorch has no switch for the number format of CUDA ({0}): expected libtorch 2.11")]
    NoSwitch(String),
}

/// Keeps the memory of freed tensors for the tensors of the next step, where glibc would return it to the system and take a page
/// fault for each page of the next one: 100,000 faults and a tenth of a step of `dilated2d`. Call it before the first tensor.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed_memory() {
    const LARGEST_BLOCK: i32 = 1 << 30;
    // SAFETY: `mallopt` takes two numbers and changes only which memory glibc keeps.
    let taken = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_BLOCK) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) == 1
    };
    debug_assert!(taken, "glibc takes both numbers");
}

/// Keeps the memory of freed tensors, which other systems do as they like.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() {}

/// Opens the CUDA part of libtorch if there is one. Call it first in `main`.
#[cfg(target_os = "linux")]
pub fn open_cuda() {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let Some(cuda) = beside_libtorch().filter(|path| path.exists()) else { return };
    // SAFETY: runs the initialisers of libtorch_cuda, part of the libtorch that is loaded already (same folder).
    match unsafe { Library::open(Some(&cuda), RTLD_NOW | RTLD_GLOBAL) } {
        // Never closed: libtorch keeps pointers into it.
        Ok(library) => std::mem::forget(library),
        Err(error) => eprintln!("warning: {} is there but does not load: {error}", cuda.display()),
    }
}

/// Opens the CUDA part of libtorch if there is one. Call it first in `main`.
#[cfg(not(target_os = "linux"))]
pub fn open_cuda() {}

#[cfg(target_os = "linux")]
fn beside_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    Some(PathBuf::from(&line[line.find('/')?..]).with_file_name("libtorch_cuda.so"))
}

/// The device to train on.
pub fn choose(choice: Choice) -> Result<Device, DeviceError> {
    let cuda = || {
        if !Cuda::is_available() {
            return Err(DeviceError::NoCuda);
        }
        let device = Device::Cuda(0);
        let sum = Tensor::f_ones([2], (Kind::Float, device)).and_then(|one| one.f_add(&one));
        sum.map(|_| device).map_err(|error| DeviceError::Broken(error.to_string()))
    };
    match choice {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Cuda => cuda(),
        Choice::Auto => Ok(cuda().unwrap_or(Device::Cpu)),
    }
}

/// Makes convolutions compute in this number format, and libtorch look for the fastest one of each shape.
///
/// On CUDA libtorch would multiply f32 in TF32 unless told otherwise, so `off` tells it.
pub fn set_precision(device: Device, amp: Amp) -> Result<(), DeviceError> {
    if !device.is_cuda() {
        return if amp == Amp::Off { Ok(()) } else { Err(DeviceError::Amp { amp, device }) };
    }
    Cuda::cudnn_set_benchmark(true);
    allow_tf32(amp == Amp::Tf32)?;
    if amp == Amp::Bf16 { set_autocast_type() } else { Ok(()) }
}

/// What `tch` does not wrap, looked up by name at run time: a libtorch without it is an error message and no broken link.
#[cfg(unix)]
fn symbol<F: Copy>(name: &'static str) -> Result<F, DeviceError> {
    let program = libloading::os::unix::Library::this();
    // SAFETY: the callers give the type of the function behind the name, which libtorch keeps while the process lives.
    let found = unsafe { program.get::<F>(name.as_bytes()) };
    found.map(|function| *function).map_err(|error| DeviceError::NoSwitch(error.to_string()))
}

#[cfg(not(unix))]
fn symbol<F>(_: &'static str) -> Result<F, DeviceError> {
    Err(DeviceError::NoSwitch("only on Unix".into()))
}

/// bf16 for mixed precision on CUDA (libtorch's default there is f16, which would need loss scaling):
/// `at::autocast::set_autocast_dtype(DeviceType, ScalarType)`.
fn set_autocast_type() -> Result<(), DeviceError> {
    const CUDA: i8 = 1;
    const BF16: i8 = 15;
    let set: unsafe extern "C" fn(i8, i8) =
        symbol("_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE")?;
    // SAFETY: both parameters are C++ enumerations over int8_t, passed like i8; the function stores one number.
    unsafe { set(CUDA, BF16) };
    Ok(())
}

/// `at::globalContext().setAllowTF32CuDNN(bool)` and its like for matrix products.
fn allow_tf32(allow: bool) -> Result<(), DeviceError> {
    let context: unsafe extern "C" fn() -> *mut c_void = symbol("_ZN2at13globalContextEv")?;
    for name in ["_ZN2at7Context17setAllowTF32CuDNNEb", "_ZN2at7Context18setAllowTF32CuBLASEb"] {
        let set: unsafe extern "C" fn(*mut c_void, bool) = symbol(name)?;
        // SAFETY: the first returns a reference to the one context of the process; the second is a member function, which
        // takes that as its first parameter, and stores one number.
        unsafe { set(context(), allow) };
    }
    Ok(())
}

/// Waits until the device has done everything that was asked of it.
pub fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_mixed_precision_is_not_for_it() {
        assert_eq!(choose(Choice::Cpu).unwrap(), Device::Cpu);
        assert!(choose(Choice::Auto).is_ok());
        set_precision(Device::Cpu, Amp::Off).unwrap();
        assert!(set_precision(Device::Cpu, Amp::Bf16).unwrap_err().to_string().contains("--amp off"));
    }

    /// The symbols that are looked up by their mangled names exist in the libtorch at hand.
    #[cfg(unix)]
    #[test]
    fn libtorch_has_the_switches() {
        set_autocast_type().unwrap();
        allow_tf32(false).unwrap();
    }
}
