//! Where tensors live, and the two things that `tch` cannot say about CUDA.
//!
//! The program links libtorch's CPU library alone, so one binary serves both kinds of machine: if a CUDA library lies
//! beside the CPU library that was loaded, it is opened before anything asks libtorch about CUDA (it caches its answer).

use std::path::PathBuf;

use tch::{Cuda, Device, Kind, Tensor};

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
    /// Mixed precision is for GPUs.
    #[error("--amp bf16 works on CUDA alone, and the device is {0:?}: use --amp off")]
    Amp(Device),
    /// Another libtorch than this program was made for.
    #[error("--amp bf16: this libtorch has no switch for the type of mixed precision ({0})")]
    NoSwitch(String),
}

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

/// Makes bf16 the type of mixed precision on CUDA (libtorch's default there is f16, which would need loss scaling).
pub fn use_bf16(device: Device) -> Result<(), DeviceError> {
    if !device.is_cuda() {
        return Err(DeviceError::Amp(device));
    }
    set_autocast_type()
}

/// `at::autocast::set_autocast_dtype(DeviceType, ScalarType)`, which `tch` does not wrap, looked up by name at run time:
/// a libtorch without it is an error message and no broken link.
#[cfg(unix)]
fn set_autocast_type() -> Result<(), DeviceError> {
    const NAME: &[u8] = b"_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE\0";
    const CUDA: i8 = 1;
    const BF16: i8 = 15;
    let program = libloading::os::unix::Library::this();
    // SAFETY: both parameters are C++ enumerations over int8_t, passed like i8; the function stores one number.
    unsafe {
        let set = program.get::<unsafe extern "C" fn(i8, i8)>(NAME);
        set.map_err(|error| DeviceError::NoSwitch(error.to_string()))?(CUDA, BF16);
    }
    Ok(())
}

#[cfg(not(unix))]
fn set_autocast_type() -> Result<(), DeviceError> {
    Err(DeviceError::NoSwitch("only on Unix".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_mixed_precision_is_not_for_it() {
        assert_eq!(choose(Choice::Cpu).unwrap(), Device::Cpu);
        assert!(choose(Choice::Auto).is_ok());
        assert!(use_bf16(Device::Cpu).unwrap_err().to_string().contains("--amp off"));
    }

    /// The one symbol that is looked up by its mangled name exists in the libtorch at hand.
    #[cfg(unix)]
    #[test]
    fn libtorch_has_the_switch() {
        set_autocast_type().unwrap();
    }
}
