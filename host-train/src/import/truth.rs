//! The truth of a scan, in whichever form a source keeps it, as classes on the scan's grid.

use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use contract::Modality;
use png::{BitDepth, ColorType, Decoder, Transformations};
use volume::{Classes, Fault, Geometry, LabelTable, Unlisted, VolumeError, read_labels};

use super::{ImportError, LabelRules, dicom::Stack, found::files};

/// A NIfTI label map that must lie on the grid of `image`; canonical `[z][y][x]`.
pub fn nifti(path: &Path, table: &LabelTable, image: &Path, geometry: &Geometry) -> Result<Vec<u8>, ImportError> {
    let labels = read_labels(path, table)?;
    labels.geometry.expect_match(geometry, image).map_err(|fault| VolumeError::new(path, fault))?;
    Ok(labels.classes)
}

/// One NIfTI mask per organ, 0 and 1; canonical `[z][y][x]`.
pub fn masks(
    folder: &Path,
    rules: &LabelRules,
    modality: Modality,
    image: &Path,
    geometry: &Geometry,
) -> Result<Vec<u8>, ImportError> {
    let mut classes = vec![0; geometry.voxels()];
    for (name, class) in rules.masks(modality)? {
        let path = folder.join(format!("{name}.nii.gz"));
        if !path.is_file() {
            return Err(VolumeError::new(&path, Fault::NoLabels { image: image.into() }).into());
        }
        let mask = nifti(&path, &LabelTable::new([(1, class)], Unlisted::Refuse), image, geometry)?;
        let mut voxels = 0;
        for (class, mask) in classes.iter_mut().zip(mask).filter(|(_, mask)| *mask != 0) {
            voxels += usize::from(*class != 0 && *class != mask);
            *class = mask;
        }
        if voxels > 0 {
            return Err(ImportError::Overlap { path, voxels });
        }
    }
    Ok(classes)
}

/// One PNG per slice of a stack; canonical `[z][y][x]`.
pub fn pngs(folder: &Path, table: &LabelTable, images: &Path, stack: &Stack) -> Result<Vec<u8>, ImportError> {
    let pngs = files(folder, ".png")?;
    let partner = partners(&stack.files, &pngs).ok_or_else(|| ImportError::Slices {
        path: folder.into(),
        images: images.into(),
        found: pngs.len(),
        expected: stack.files.len(),
    })?;
    let [columns, rows, _] = stack.geometry.stored_dims();
    let mut classes = Vec::with_capacity(stack.raw.len());
    for &file in &stack.order {
        let path = &pngs[partner[file]];
        let mut slice = Classes::new(table, columns * rows);
        png(path, [columns, rows])?.into_iter().for_each(|grey| slice.push(grey.into()));
        let slice = slice.finish(|index| [index % columns, index / columns, 0]);
        classes.extend(slice.map_err(|fault| VolumeError::new(path, fault))?);
    }
    Ok(stack.geometry.to_canonical(&classes))
}

/// Which PNG belongs to which DICOM file, both in order of name: that of the same name if every slice has one (the MRI of
/// CHAOS), else that of the same rank (its CT: `i0007,0000b.dcm` and `liver_GT_007.png`; T1 out of phase, whose truth is
/// named after the slices in phase). Not by place: the order of names is the one in which the truth was saved.
fn partners(slices: &[PathBuf], pngs: &[PathBuf]) -> Option<Vec<usize>> {
    let ranks: HashMap<_, usize> = pngs.iter().enumerate().map(|(rank, path)| (path.file_stem(), rank)).collect();
    let by_name: Option<Vec<usize>> = slices.iter().map(|path| ranks.get(&path.file_stem()).copied()).collect();
    by_name.or_else(|| (slices.len() == pngs.len()).then(|| (0..slices.len()).collect()))
}

/// Grey values, row by row.
fn png(path: &Path, [columns, rows]: [usize; 2]) -> Result<Vec<u8>, ImportError> {
    let wrong = |message: String| ImportError::Png { path: path.into(), message };
    let file = File::open(path).map_err(|error| ImportError::io(path, error))?;
    let mut decoder = Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(|error| wrong(error.to_string()))?;
    let (width, height) = reader.info().size();
    if [width as usize, height as usize] != [columns, rows] {
        return Err(wrong(format!("{width}x{height} pixels, expected {columns}x{rows} as the DICOM slices have")));
    }
    let form = reader.output_color_type();
    if form != (ColorType::Grayscale, BitDepth::Eight) {
        return Err(wrong(format!("{:?} of {:?} bits, expected grey values of 8 bits", form.0, form.1)));
    }
    let mut grey = vec![0; columns * rows];
    reader.next_frame(&mut grey).map_err(|error| wrong(error.to_string()))?;
    Ok(grey)
}
